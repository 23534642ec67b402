"""Writes the plugin executables: thin starts that import one module, resolved now and not at every call."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import cni_plugins
from runtime_core.cni.invoke import STUB_MARK
from runtime_core.errors import AlreadyExists, InvalidArgument, from_oserror
from runtime_core.registry import installed, locate

_STUB = """#!{python} -IS
{mark}: {kind} is {module}. Written by trivet-cni install; write it again when Trivet moves.
import sys
sys.path.insert(0, {root!r})
from cni_plugins.skel import main
sys.exit(main({modules!r}, {kind!r}, {packet_filter!r}))
"""


def install(directory: Path, *, overwrite: bool, packet_filter: str) -> list[str]:
    """An executable in `directory` for each trivet.cni entry point; their names. Idempotent.

    They use the driver `packet_filter` of trivet.packetfilter.

    AlreadyExists for a file that is not ours, unless `overwrite`; then nothing has been written.
    """
    python = os.path.realpath(sys.executable)
    if len(python) > 100:
        raise InvalidArgument(f"the interpreter's path {python!r} is too long for a #! line")
    modules = {driver.name: driver.entry for driver in installed("cni")}
    filter_entry = locate("packetfilter", packet_filter)
    root = str(Path(cni_plugins.__file__).parent.parent)
    foreign = [name for name in modules if _is_foreign(directory / name)]
    if foreign and not overwrite:
        raise AlreadyExists(f"{directory}: {', '.join(foreign)} belong to somebody else; --overwrite replaces them")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, module in modules.items():
            text = _STUB.format(
                python=python, mark=STUB_MARK.decode(), kind=name, module=module, root=root, modules=modules,
                packet_filter=filter_entry,
            )  # fmt: skip
            temporary = directory / f".{name}.trivet"
            temporary.write_text(text)
            temporary.chmod(0o755)
            temporary.rename(directory / name)
    except OSError as error:
        raise from_oserror(error, f"installing into {directory}") from error
    return sorted(modules)


def _is_foreign(path: Path) -> bool:
    return path.exists() and STUB_MARK not in path.read_bytes()[:256]
