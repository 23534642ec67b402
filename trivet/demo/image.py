"""A small image from programs of this machine: a shell and a few tools, with the libraries they need."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import struct
import tarfile
from pathlib import Path

from runtime_core.errors import NotFound

TOOLS = ("sh", "cat", "echo", "hostname", "id", "ls", "ps", "sleep", "stat", "touch", "true", "uname", "date", "head")
_STATIC = ("/bin/busybox", "/usr/bin/busybox", "/bin/busybox.static")
_LIBRARY_DIRECTORIES = ("/lib", "/usr/lib", "/lib64", "/usr/lib64", "/lib/{triplet}", "/usr/lib/{triplet}")
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NEEDED, _DT_STRTAB = 1, 5
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"


def build_layer() -> tuple[bytes, bytes, str]:
    """(gzip blob, tar, media type) of a layer with /bin, /etc, /tmp and what its programs load."""
    files: dict[str, Path] = {}
    links: dict[str, str] = {}
    static = next((Path(path) for path in _STATIC if os.path.exists(path) and not needed(Path(path))[1]), None)
    for tool in TOOLS:
        if static is not None:
            links[f"bin/{tool}"] = "busybox"
        else:
            _add_program(tool, files)
    if static is not None:
        files["bin/busybox"] = static
    tar = _tar(files, links)
    return gzip.compress(tar, 1), tar, LAYER_TYPE


def needed(program: Path) -> tuple[str, list[str]]:
    """(interpreter, shared libraries) that an ELF file asks for (elf(5)); ("", []) for a static one."""
    data = program.read_bytes()
    if data[:5] != b"\x7fELF\x02":
        return "", []
    offset, size, count = *struct.unpack_from("<Q", data, 32), *struct.unpack_from("<HH", data, 54)
    segments = [struct.unpack_from("<IIQQQQ", data, offset + size * number) for number in range(count)]
    interpreter, names = "", []
    for kind, _flags, start, _virtual, _physical, length in segments:
        if kind == _PT_INTERP:
            interpreter = data[start : start + length].rstrip(b"\0").decode()
        elif kind == _PT_DYNAMIC:
            names = _needed_names(data, start, length, segments)
    return interpreter, names


def _needed_names(data: bytes, start: int, length: int, segments: list[tuple[int, ...]]) -> list[str]:
    entries = [struct.unpack_from("<QQ", data, start + step) for step in range(0, length, 16)]
    address = next(value for tag, value in entries if tag == _DT_STRTAB)
    strings = next(
        address - virtual + begin
        for kind, _flags, begin, virtual, _physical, extent in segments
        if kind == _PT_LOAD and virtual <= address < virtual + extent
    )
    return [data[strings + value : data.index(b"\0", strings + value)].decode() for tag, value in entries if tag == _DT_NEEDED]


def _add_program(tool: str, files: dict[str, Path]) -> None:
    found = shutil.which(tool, path="/bin:/usr/bin")
    if found is None:
        if tool == "sh":
            raise NotFound("this machine has no /bin/sh to make an image from")
        return
    pending = [(f"bin/{tool}", Path(found))]
    while pending:
        name, path = pending.pop()
        if name in files:
            continue
        files[name] = path
        interpreter, libraries = needed(path)
        if interpreter:
            pending.append((interpreter.lstrip("/"), Path(interpreter)))
        for library in libraries:
            pending.append((f"lib/{library}", _find_library(library)))


def _find_library(name: str) -> Path:
    triplet = f"{os.uname().machine}-linux-gnu"
    for pattern in _LIBRARY_DIRECTORIES:
        path = Path(pattern.format(triplet=triplet), name)
        if path.exists():
            return path
    raise NotFound(f"the library {name} of a program of this machine is nowhere to be found")


def _tar(files: dict[str, Path], links: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        names = [*files, *links, "etc/passwd", "tmp/x", "proc/x", "sys/x", "dev/x"]
        for directory in sorted({str(parent) for name in names for parent in Path(name).parents} - {"."}):
            member = tarfile.TarInfo(directory)
            member.type, member.mode = tarfile.DIRTYPE, 0o1777 if directory == "tmp" else 0o755
            archive.addfile(member)
        for name, path in sorted(files.items()):
            content = path.read_bytes()
            _add_file(archive, name, content, 0o755)
        for name, target in sorted(links.items()):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
        _add_file(archive, "etc/passwd", b"root:x:0:0:root:/:/bin/sh\nguest:x:1000:1000::/tmp:/bin/sh\n", 0o644)
        _add_file(archive, "etc/group", b"root:x:0:\nguest:x:1000:\nextra:x:2000:guest\n", 0o644)
    return buffer.getvalue()


def _add_file(archive: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    archive.addfile(member, io.BytesIO(content))
