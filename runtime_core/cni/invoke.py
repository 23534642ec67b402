"""Calling one plugin: in this process when it is ours, as an executable when it is somebody's."""

from __future__ import annotations

import importlib
import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from runtime_core.cni import result as cni_result
from runtime_core.cni.request import Request, previous_result
from runtime_core.errors import DeadlineExceeded, InvalidArgument, NotFound, TrivetError, Unavailable, from_oserror
from runtime_core.kernel import entry_point

Answer = TypeVar("Answer")
#: The second line of an executable that `trivet-cni install` wrote.
STUB_MARK = b"# trivet-cni stub"
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_TIMEOUT_SECONDS = 120.0
#: What nobody but the daemon itself wants: a STATUS that takes longer than a kubelet's period is no answer, and
#: GC comes before the first call is served.
_SHORTER = {"STATUS": 10.0, "GC": 30.0}
_MOST_OUTPUT = 4 * 1024 * 1024
#: of a plugin's message: it goes into logs, and into gRPC headers, which hold 8 KiB
_MOST_MESSAGE = 1000
_FUNCTIONS = {"ADD": "add", "DEL": "delete", "CHECK": "check", "GC": "gc", "STATUS": "status"}


Delegate = Callable[[str, str, Request], dict[str, Any]]


class PluginFailed(TrivetError):
    """A plugin's own error object (specification section 5)."""

    def __init__(self, plugin: str, code: int, message: str, details: str = "") -> None:
        super().__init__(f"CNI plugin {plugin}: {message}{f' ({details})' if details else ''} (code {code})")
        self.code, self.details = code, details


class PluginMissing(NotFound):
    """Named by a configuration, and nowhere. Never code 3, which says that there is nothing to take down."""

    cni_code = 7


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
        """The plugin's result, {} where the verb has none. Raises the plugin's error, or ours.

        Somebody's executable is given PATH and the parameters: what else the environment holds is the runtime's own."""
        return self._call(kind, verb, request, {"PATH": os.environ.get("PATH", _PATH)}, self.delegate)

    def delegate(self, kind: str, verb: str, request: Request) -> dict[str, Any]:
        """As `call`, for a plugin that hands its work on: to whom it does, it gives its whole environment
        (specification section 4). That one delegates no further: by `ipam.type` it would call itself."""
        return self._call(kind, verb, request, {"PATH": _PATH, **os.environ}, None)

    def _call(
        self, kind: str, verb: str, request: Request, environment: Mapping[str, str], delegate: Delegate | None
    ) -> dict[str, Any]:
        executable = self._executable(kind)
        if executable is None:
            if kind not in self._modules:
                where = ", ".join(self._directories)
                raise PluginMissing(f"CNI plugin {kind!r} is neither in {where} nor one of Trivet's")
            return self._in_process(kind, verb, request, delegate)
        return self._execute(executable, kind, verb, request, environment)

    def load(self, kind: str) -> None:
        """Import now what a later call of it runs in this process, nothing where it is an executable; PluginFailed
        when that cannot be imported."""
        if kind in self._modules and self._executable(kind) is None:
            _guarded(kind, lambda: self._module(kind))
            if self._packet_filter:
                _guarded(kind, lambda: entry_point.load(self._packet_filter))

    def _executable(self, kind: str) -> Path | None:
        for directory in self._directories:
            path = Path(directory, kind)
            if path.is_file() and os.access(path, os.X_OK):
                if kind in self._modules and _is_ours(path):
                    return None
                return path
        return None

    def _in_process(self, kind: str, verb: str, request: Request, delegate: Delegate | None) -> dict[str, Any]:
        mine = Request(
            config=request.config,
            container_id=request.container_id,
            netns=request.netns,
            interface=request.interface,
            args=request.args,
            path=request.path,
            previous=previous_result(request.config, verb),
            delegate=delegate,
            packet_filter=self._packet_filter,
        )

        def run() -> dict[str, Any]:
            found: dict[str, Any] | None = getattr(self._module(kind), _FUNCTIONS[verb])(mine)
            return cni_result.export(found, request.config.get("cniVersion", "0.1.0")) if found else {}

        return _guarded(f"{kind} {verb}", run)

    def _module(self, kind: str) -> ModuleType:
        return importlib.import_module(self._modules[kind])

    def _execute(self, path: Path, kind: str, verb: str, request: Request, environment: Mapping[str, str]) -> dict[str, Any]:
        environment = {
            **environment,
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": request.container_id,
            "CNI_NETNS": request.netns,
            "CNI_IFNAME": request.interface,
            "CNI_ARGS": ";".join(f"{key}={value}" for key, value in request.args.items()),
            "CNI_PATH": ":".join(self._directories),
        }
        what = f"CNI plugin {kind} {verb}"
        try:
            # A session of its own, so that a time-out also ends what the plugin has started.
            process = subprocess.Popen(
                [str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env=environment, start_new_session=True, bufsize=0,
            )  # fmt: skip
        except OSError as error:
            raise from_oserror(error, what) from error
        with process:
            try:
                seconds = min(self._timeout, _SHORTER.get(verb, self._timeout))
                output, complaint = _PluginExchange(process, json.dumps(request.config).encode()).run(what, seconds)
            except TrivetError:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        return _read_answer(kind, verb, process.returncode, output, complaint)


def _guarded(what: str, run: Callable[[], Answer]) -> Answer:
    """What `run` returns, a plugin of ours; its errors as those of a process would be told."""
    try:
        return run()
    except TrivetError:
        raise
    except OSError as error:
        raise from_oserror(error, f"CNI plugin {what}") from error
    except Exception as error:  # the edge of what could be a process: a crash is the plugin's failure
        raise PluginFailed(what, 999, f"{type(error).__name__}: {error}"[:_MOST_MESSAGE]) from error


class _PluginExchange:
    """Configuration in, output out, within a budget of bytes and of seconds."""

    def __init__(self, process: subprocess.Popen[bytes], text: bytes) -> None:
        self._process, self._text = process, text
        self._selector = selectors.DefaultSelector()
        self._output: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}

    def run(self, what: str, seconds: float) -> tuple[bytes, bytes]:
        """(stdout, stderr) of the ended plugin. A process that it left behind may hold the pipes: nobody waits for that."""
        assert self._process.stdin and self._process.stdout and self._process.stderr
        deadline = time.monotonic() + seconds
        ended = os.pidfd_open(self._process.pid)
        with self._selector:
            try:
                os.set_blocking(self._process.stdin.fileno(), False)
                self._selector.register(self._process.stdin, selectors.EVENT_WRITE, "stdin")
                self._selector.register(self._process.stdout, selectors.EVENT_READ, "stdout")
                self._selector.register(self._process.stderr, selectors.EVENT_READ, "stderr")
                self._selector.register(ended, selectors.EVENT_READ, "end")
                self._exchange(what, deadline)
            except TimeoutError:
                raise DeadlineExceeded(f"{what} did not end within {seconds:g} s") from None
            finally:
                os.close(ended)
        self._process.wait()
        return bytes(self._output["stdout"]), bytes(self._output["stderr"])

    def _exchange(self, what: str, deadline: float) -> None:
        has_ended = False
        while True:
            ready = self._selector.select(0 if has_ended else max(0.0, deadline - time.monotonic()))
            if not ready:
                if has_ended:
                    return
                raise TimeoutError
            for key, _events in ready:
                if key.data == "end":
                    has_ended = True
                    self._selector.unregister(key.fileobj)
                elif key.data == "stdin":
                    self._write(key)
                else:
                    self._read(key, what)
            if has_ended and all(key.data == "stdin" for key in self._selector.get_map().values()):
                return

    def _write(self, key: selectors.SelectorKey) -> None:
        try:
            self._text = self._text[os.write(key.fd, self._text[:65536]) :]
        except BrokenPipeError:
            self._text = b""  # it need not read its configuration
        if not self._text:
            self._selector.unregister(key.fileobj)
            self._process.stdin.close()  # type: ignore[union-attr]

    def _read(self, key: selectors.SelectorKey, what: str) -> None:
        data = os.read(key.fd, 65536)
        if not data:
            self._selector.unregister(key.fileobj)
        elif key.data == "stderr":
            _pass_on(data)
        received = self._output[key.data]
        received += data
        if len(received) > _MOST_OUTPUT:
            raise InvalidArgument(f"{what} printed more than {_MOST_OUTPUT} bytes on {key.data}")


def _pass_on(complaint: bytes) -> None:
    """A plugin's standard error is its caller's, also when it succeeds."""
    try:
        while complaint:
            complaint = complaint[os.write(2, complaint) :]
    except OSError:
        pass  # the caller has none, or nobody reads it: the call goes on


def _read_answer(kind: str, verb: str, status: int, output: bytes, complaint: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(output) if output.strip() else {}
    except (ValueError, RecursionError):
        answer = {"code": 999, "msg": f"printed no JSON: {output[:200]!r}"}
        status = status or 1
    if not isinstance(answer, dict):
        raise Unavailable(f"CNI plugin {kind} {verb} printed no object")
    if status != 0:
        raise _failure(kind, verb, status, answer, complaint)
    if verb == "ADD" and not answer:
        raise Unavailable(f"CNI plugin {kind} ADD printed no result")
    return answer


def _failure(kind: str, verb: str, status: int, answer: dict[str, Any], complaint: bytes) -> PluginFailed:
    code, message, details = answer.get("code"), answer.get("msg"), answer.get("details")
    if not isinstance(message, str) or not message:
        last_words = complaint[-_MOST_MESSAGE:].decode(errors="replace").strip()
        message = last_words or (f"killed by signal {-status}" if status < 0 else f"exit status {status}")
    if not isinstance(code, int) or isinstance(code, bool) or not 0 < code < 1 << 31:
        code = 999
    details = details if isinstance(details, str) else ""
    return PluginFailed(f"{kind} {verb}", code, message[:_MOST_MESSAGE], details[:_MOST_MESSAGE])


def _is_ours(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return STUB_MARK in file.read(256)
    except OSError as error:
        raise from_oserror(error, f"CNI plugin {path}") from error
