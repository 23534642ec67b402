"""Compile the protocol buffers of the repository, or check that what is committed is what they compile to.

python tools/generate_protocol.py          write the generated code and the field table
python tools/generate_protocol.py --check  exit 1 and name the files that differ
"""

from __future__ import annotations

import argparse
import importlib.resources
import sys
import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOCOLS = {
    Path("cri/api/v1/api.proto"): Path("tests/architecture/cri_fields.txt"),
    Path("csi_driver/api/v1/csi.proto"): Path("tests/architecture/csi_fields.txt"),
    Path("csi_driver/api/registration/registration.proto"): Path("tests/architecture/registration_fields.txt"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    check = parser.parse_args().check
    differing = []
    for proto, table in PROTOCOLS.items():
        for path, content in compile_protocol(proto, table).items():
            target = ROOT / path
            if check and (not target.exists() or target.read_text() != content):
                differing.append(str(path))
            elif not check:
                target.write_text(content)
    for name in differing:
        print(f"{name}: differs from its .proto; run tools/generate_protocol.py", file=sys.stderr)
    return 1 if differing else 0


def compile_protocol(proto: Path, table: Path) -> dict[Path, str]:
    """Path in the repository → content of each generated file."""
    with tempfile.TemporaryDirectory() as scratch:
        descriptors = Path(scratch, "descriptors")
        arguments = [
            "protoc",
            f"-I{ROOT}",
            f"-I{importlib.resources.files('grpc_tools') / '_proto'}",
            f"--python_out={scratch}",
            f"--pyi_out={scratch}",
            f"--grpc_python_out={scratch}",
            f"--descriptor_set_out={descriptors}",
            str(proto),
        ]
        if protoc.main(arguments) != 0:
            raise SystemExit(f"{proto}: protoc refused it")
        stem = proto.with_suffix("")
        names = [stem.with_name(stem.name + suffix) for suffix in ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py")]
        generated = {name: Path(scratch, name).read_text() for name in names}
        generated[table] = field_table(descriptors.read_bytes())
    return generated


def field_table(serialized: bytes) -> str:
    """One line per message field, enum value and method: what must never change."""
    files = descriptor_pb2.FileDescriptorSet.FromString(serialized)
    lines: list[str] = []
    for file in files.file:
        for service in file.service:
            for method in service.method:
                stream = "stream " if method.server_streaming else ""
                lines.append(f"{service.name}.{method.name}({method.input_type}) {stream}{method.output_type}")
        for enum in file.enum_type:
            lines += [f"{enum.name}.{value.name} = {value.number}" for value in enum.value]
        for message in file.message_type:
            lines += _message_lines(message.name, message)
    return "\n".join(sorted(lines)) + "\n"


def _message_lines(name: str, message: descriptor_pb2.DescriptorProto) -> list[str]:
    lines = []
    for field in message.field:
        kind = descriptor_pb2.FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
        label = "repeated " if field.label == field.LABEL_REPEATED else ""
        lines.append(f"{name}.{field.name} = {field.number} {label}{field.type_name or kind}")
    for nested in message.nested_type:
        lines += _message_lines(f"{name}.{nested.name}", nested)
    return lines


if __name__ == "__main__":
    sys.exit(main())
