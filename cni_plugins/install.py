"""Writes the plugin executables; modules and drivers are looked up once, at the installation, not at every call."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import platform
import sys
import sysconfig
from pathlib import Path
from typing import Any

import cni_plugins
from cni_plugins import native
from runtime_core.cni.invoke import STUB_MARK
from runtime_core.errors import AlreadyExists, InvalidArgument, from_oserror
from runtime_core.registry import installed, locate

SOCKET_DIRECTORY = "/run/trivet/cni"
IDLE_SECONDS = 600
_MARK = "{mark}: {kind} is {module}. Written by trivet-cni install; run it again after Trivet has been moved.\n"
_CODE = """import sys
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
            content = _executable(python, name, module, settings)
            temporary = directory / f".{name}.trivet"
            temporary.write_bytes(content)
            temporary.chmod(0o755)
            temporary.rename(directory / name)
    except OSError as error:
        raise from_oserror(error, f"installing into {directory}") from error
    return sorted(modules)


def _executable(python: str, kind: str, module: str, settings: dict[str, Any]) -> bytes:
    """Machine code on x86-64; otherwise, and for plugins with a command line, a Python script."""
    mark = _MARK.format(mark=STUB_MARK.decode(), kind=kind, module=module).encode()
    code = _CODE.format(root=_ROOT, kind=kind, settings=settings)
    if not settings["socket"] or settings["script"] or platform.machine() != "x86_64" or _has_command_line(module):
        return f"#!{python} -IS\n".encode() + mark + code.encode()
    prefix = f"{settings['key']}\0{kind}\0".encode()
    try:
        return native.executable(
            mark, settings["socket"], prefix, python, code, *([settings["patience"]] if "patience" in settings else [])
        )
    except ValueError as error:
        raise InvalidArgument(f"socket: {error}") from error


def _has_command_line(module: str) -> bool:
    try:
        return hasattr(importlib.import_module(module), "command_line")
    except ImportError:
        return False  # that is said by the call


def find_settings(
    packet_filter: str, *, service: bool = True, socket: str = "", idle: float = IDLE_SECONDS, script: bool = False
) -> dict[str, Any]:
    """What an executable and the service must agree on, looked up now and not at every call.

    `packet_filter` is a driver of trivet.packetfilter; with `script` no executable is machine code. The socket's
    name contains a hash of it, so that no executable calls the service of another installation.
    """
    found: dict[str, Any] = {
        "modules": {driver.name: driver.entry for driver in installed("cni")},
        "packet_filter": locate("packetfilter", packet_filter),
        "path": [path for path in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")) if path != _ROOT],
    }
    known = json.dumps([sys.executable, _ROOT, found], sort_keys=True)
    found["key"] = hashlib.sha256(known.encode()).hexdigest()[:12]
    found["socket"] = (socket or f"{SOCKET_DIRECTORY}/{found['key']}.sock") if service else ""
    found["idle"], found["script"] = idle, script
    return found


def _is_foreign(path: Path) -> bool:
    return path.exists() and STUB_MARK not in path.read_bytes()[:256]
