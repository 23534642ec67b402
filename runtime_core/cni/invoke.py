"""Calling one plugin: in this process when it is ours, as an executable when it is somebody's."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from runtime_core.cni import result as cni_result
from runtime_core.cni.request import Request
from runtime_core.errors import DeadlineExceeded, InvalidArgument, NotFound, TrivetError, Unavailable

#: The second line of an executable that `trivet-cni install` wrote.
STUB_MARK = b"# trivet-cni stub"
_TIMEOUT_SECONDS = 120.0
_MOST_OUTPUT = 4 * 1024 * 1024
_FUNCTIONS = {"ADD": "add", "DEL": "delete", "CHECK": "check", "GC": "gc", "STATUS": "status"}


class PluginFailed(TrivetError):
    """A plugin's own error object (specification section 5)."""

    def __init__(self, plugin: str, code: int, message: str, details: str = "") -> None:
        super().__init__(f"CNI plugin {plugin}: {message}{f' ({details})' if details else ''} (code {code})")
        self.code = code


class Plugins:
    """Finds plugins: a foreign executable in the directories first, then our own modules."""

    def __init__(
        self,
        directories: Sequence[str],
        modules: Mapping[str, str],
        *,
        packet_filter: str = "",
        timeout: float = _TIMEOUT_SECONDS,
    ) -> None:
        """`modules`: plugin type → importable module, from the entry points trivet.cni; `packet_filter`
        is the entry point of the driver that ours use."""
        self._directories, self._modules, self._timeout = list(directories), dict(modules), timeout
        self._packet_filter = packet_filter

    def call(self, kind: str, verb: str, request: Request) -> dict[str, Any]:
        """The plugin's result, {} where the verb has none. Raises the plugin's error, or ours."""
        executable = self._executable(kind)
        if executable is None:
            if kind not in self._modules:
                where = ", ".join(self._directories)
                raise NotFound(f"CNI plugin {kind!r} is neither in {where} nor one of Trivet's")
            return self._in_process(kind, verb, request)
        return self._execute(executable, kind, verb, request)

    def _executable(self, kind: str) -> Path | None:
        for directory in self._directories:
            path = Path(directory, kind)
            if path.is_file() and os.access(path, os.X_OK):
                if kind in self._modules and _is_ours(path):
                    return None
                return path
        return None

    def _in_process(self, kind: str, verb: str, request: Request) -> dict[str, Any]:
        module: ModuleType = importlib.import_module(self._modules[kind])
        previous = request.config.get("prevResult")
        mine = Request(
            config=request.config,
            container_id=request.container_id,
            netns=request.netns,
            interface=request.interface,
            args=request.args,
            path=request.path,
            previous=cni_result.read(previous) if previous is not None else None,
            delegate=self.call,
            packet_filter=self._packet_filter,
        )
        found: dict[str, Any] | None = getattr(module, _FUNCTIONS[verb])(mine)
        return cni_result.export(found, request.config["cniVersion"]) if found else {}

    def _execute(self, path: Path, kind: str, verb: str, request: Request) -> dict[str, Any]:
        environment = {
            "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": request.container_id,
            "CNI_NETNS": request.netns,
            "CNI_IFNAME": request.interface,
            "CNI_ARGS": ";".join(f"{key}={value}" for key, value in request.args.items()),
            "CNI_PATH": ":".join(self._directories),
        }
        # A session of its own, so that a time-out also ends what the plugin has started.
        with subprocess.Popen(
            [str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=environment, start_new_session=True,
        ) as process:  # fmt: skip
            try:
                output, complaint = process.communicate(json.dumps(request.config).encode(), self._timeout)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise DeadlineExceeded(f"CNI plugin {kind} {verb} did not end within {self._timeout} s") from None
        return _read_answer(kind, verb, process.returncode, output, complaint)


def _read_answer(kind: str, verb: str, status: int, output: bytes, complaint: bytes) -> dict[str, Any]:
    if len(output) > _MOST_OUTPUT:
        raise InvalidArgument(f"CNI plugin {kind} {verb} printed {len(output)} bytes")
    try:
        answer = json.loads(output) if output.strip() else {}
    except ValueError:
        answer = {"code": 999, "msg": f"printed no JSON: {output[:200]!r}"}
        status = status or 1
    if status != 0:
        message = answer.get("msg") or complaint.decode(errors="replace").strip()[:1000] or f"exit status {status}"
        raise PluginFailed(kind, int(answer.get("code", 999)), message, str(answer.get("details", "")))
    if not isinstance(answer, dict):
        raise Unavailable(f"CNI plugin {kind} {verb} printed no object")
    return answer


def _is_ours(path: Path) -> bool:
    with path.open("rb") as file:
        return STUB_MARK in file.read(256)
