"""Writes the plugin executables: thin starts that import one module, resolved now and not at every call."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import sysconfig
from pathlib import Path
from typing import Any

import cni_plugins
from runtime_core.cni.invoke import STUB_MARK
from runtime_core.errors import AlreadyExists, InvalidArgument, from_oserror
from runtime_core.registry import installed, locate

SOCKET_DIRECTORY = "/run/trivet/cni"
IDLE_SECONDS = 600
_STUB = """#!{python} -IS
{mark}: {kind} is {module}. Written by trivet-cni install; write it again when Trivet moves.
import sys
sys.path.insert(0, {root!r})
from cni_plugins.start import main
main({kind!r}, {settings!r})
"""
_ROOT = str(Path(cni_plugins.__file__).parent.parent)


def install(directory: Path, *, overwrite: bool, settings: dict[str, Any]) -> list[str]:
    """An executable in `directory` for each plugin of `settings`; their names. Idempotent.

    AlreadyExists for a file that is not ours, unless `overwrite`; then nothing has been written.
    """
    python = os.path.realpath(sys.executable)
    if len(python) > 100:
        raise InvalidArgument(f"the interpreter's path {python!r} is too long for a #! line")
    modules = settings["modules"]
    foreign = [name for name in modules if _is_foreign(directory / name)]
    if foreign and not overwrite:
        raise AlreadyExists(f"{directory}: {', '.join(foreign)} belong to somebody else; --overwrite replaces them")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, module in modules.items():
            text = _STUB.format(
                python=python, mark=STUB_MARK.decode(), kind=name, module=module, root=_ROOT, settings=settings
            )  # fmt: skip
            temporary = directory / f".{name}.trivet"
            temporary.write_text(text)
            temporary.chmod(0o755)
            temporary.rename(directory / name)
    except OSError as error:
        raise from_oserror(error, f"installing into {directory}") from error
    return sorted(modules)


def find_settings(packet_filter: str, *, service: bool = True, socket: str = "", idle: float = IDLE_SECONDS) -> dict[str, Any]:
    """What an executable and the service must agree on, looked up now and not at every call.

    `packet_filter` is a driver of trivet.packetfilter. The socket is named after all of it, so that no executable
    meets the service of another installation.
    """
    found: dict[str, Any] = {
        "modules": {driver.name: driver.entry for driver in installed("cni")},
        "packet_filter": locate("packetfilter", packet_filter),
        "path": [path for path in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")) if path != _ROOT],
    }
    known = json.dumps([sys.executable, _ROOT, found], sort_keys=True)
    found["key"] = hashlib.sha256(known.encode()).hexdigest()[:12]
    found["socket"] = (socket or f"{SOCKET_DIRECTORY}/{found['key']}.sock") if service else ""
    found["idle"] = idle
    return found


def _is_foreign(path: Path) -> bool:
    return path.exists() and STUB_MARK not in path.read_bytes()[:256]
