"""The daemon's side of the launcher: start it, ask it for forked jobs, hear how they end.

`Launcher.start` belongs at the very beginning of a program, before any thread and any
import of grpc; everything else may be called from any thread.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import runtime_core
from runtime_core.errors import DeadlineExceeded, Unavailable
from runtime_core.launcher import messages
from runtime_core.launcher.reexec import protected_interpreter

_BOOTSTRAP = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from runtime_core.launcher.server import main; main(int(sys.argv[2]), sys.argv[3:])"
)
_ANSWER_SECONDS = 30.0


class Job:
    """One forked process, by its exit status only: who wants to signal it has the pid."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._ended = threading.Event()
        self._status = 0

    def wait(self, timeout: float | None = None) -> int:
        """Exit code, negative for a signal; DeadlineExceeded after `timeout` seconds."""
        if not self._ended.wait(timeout):
            raise DeadlineExceeded(f"process {self.pid} has not ended within {timeout} s")
        return self._status

    def ended(self, status: int) -> None:
        """Called by the reader with the exit status; wakes those who wait."""
        self._status = status
        self._ended.set()


class _Reply:
    def __init__(self) -> None:
        self.arrived = threading.Event()
        self.job: Job | None = None
        self.error = ""


class Launcher:
    """A running launcher process; runtime_core.launcher.server explains why there is one."""

    def __init__(self, preload: Sequence[str]) -> None:
        self._preload = list(preload)
        self._lock = threading.Lock()
        self._replies: dict[int, _Reply] = {}
        self._jobs: dict[int, Job] = {}
        self._next = 0
        self._closed = False
        self._reader: threading.Thread | None = None
        self._spawn()

    @classmethod
    def start(cls, preload: Sequence[str]) -> Launcher:
        """Start the process; it imports the modules `preload`, whose functions can then be jobs."""
        return cls(preload)

    def fork(self, job: str, argument: dict[str, Any], descriptors: Sequence[int] = ()) -> Job:
        """Fork a process that runs "module:function" with `argument` and a copy of each descriptor.

        Unavailable when the launcher has died; the next call finds a new one.
        """
        reply = _Reply()
        with self._lock:
            self._ensure_reader()
            self._next += 1
            number = self._next
            self._replies[number] = reply
            try:
                messages.send(self._socket, {"id": number, "job": job, "argument": argument}, descriptors)
            except BaseException as error:
                del self._replies[number]
                if not isinstance(error, OSError):
                    raise
                raise Unavailable(f"launcher {self.pid} does not listen: {error}") from error
        if not reply.arrived.wait(_ANSWER_SECONDS):
            raise DeadlineExceeded(f"launcher {self.pid} has not answered within {_ANSWER_SECONDS} s")
        if reply.job is None:
            raise Unavailable(f"launcher could not start {job}: {reply.error}")
        return reply.job

    def close(self) -> None:
        """End the launcher; its children stay."""
        with self._lock:
            self._closed = True
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        if self._reader is not None:
            self._reader.join(timeout=5)
        else:
            self._lost()  # there is no reader to reap it
        self._socket.close()

    def _spawn(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        interpreter = protected_interpreter()
        root = str(Path(runtime_core.__file__).parent.parent)
        # argv[0] is the real path: that is how Python finds its standard library.
        arguments = [os.path.realpath(sys.executable), "-I", "-S", "-c", _BOOTSTRAP, root]
        try:
            os.set_inheritable(theirs.fileno(), True)
            os.set_inheritable(interpreter, True)
            self.pid = os.posix_spawn(
                f"/proc/self/fd/{interpreter}",
                [*arguments, str(theirs.fileno()), *self._preload],
                {
                    "PATH": os.environ.get("PATH", ""),
                    "MALLOC_TRIM_THRESHOLD_": "65536",
                    "MALLOC_TOP_PAD_": "4096",
                    **_armed_failpoints(),
                },
            )
        finally:
            os.close(interpreter)
            theirs.close()
        self._socket = ours
        try:
            messages.receive(ours)
        except (EOFError, OSError) as error:
            raise Unavailable(f"launcher {self.pid} died at its start") from error

    def _ensure_reader(self) -> None:
        if self._reader is None or not self._reader.is_alive():
            if self._closed:
                raise Unavailable("the launcher is closed")
            if self._reader is not None:
                self._socket.close()
                self._spawn()
            self._reader = threading.Thread(target=self._read, name="launcher", daemon=True)
            self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                message, _descriptors = messages.receive(self._socket)
            except (EOFError, OSError):
                break
            if "exited" in message:
                job = self._jobs.pop(message["exited"], None)
                if job is not None:
                    job.ended(message["status"])
                continue
            reply = self._replies.pop(message["id"], None)
            if reply is None:
                continue
            if "pid" in message:
                # Known before the reply is: its exit may be the very next message.
                reply.job = self._jobs[message["pid"]] = Job(message["pid"])
            reply.error = message.get("error", "")
            reply.arrived.set()
        self._lost()

    def _lost(self) -> None:
        with contextlib.suppress(ChildProcessError, ProcessLookupError):
            if not self._closed:
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        for reply in list(self._replies.values()):
            reply.error = "it has died"
            reply.arrived.set()
        self._replies.clear()


def _armed_failpoints() -> dict[str, str]:
    armed = os.environ.get("TRIVET_FAILPOINTS")
    return {"TRIVET_FAILPOINTS": armed} if armed else {}
