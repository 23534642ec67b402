"""One container as its monitor sees it: process, output, log, exit."""

from __future__ import annotations

import errno
import os
import signal
import time

from runtime_core.container import create as container_create
from runtime_core.container import start as container_start
from runtime_core.container.request import CreateRequest
from runtime_core.errors import FailedPrecondition, InvalidArgument
from runtime_core.kernel import failpoint, paths, unexpected_errors
from runtime_core.monitor import exit_record
from runtime_core.monitor.attached import AttachedClient
from runtime_core.monitor.cri_log import LineWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any

    from runtime_core.interfaces.cgroup_manager import CgroupManager

_READ = 64 * 1024
_LOG_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class Container:
    """States: created → running → stopped."""

    __slots__ = (
        "_attached",
        "_init",
        "_slow",
        "_stdin",
        "cgroup_path",
        "cgroups",
        "directory",
        "dropped",
        "exit",
        "id",
        "log",
        "log_path",
        "output",
        "pid",
        "pidfd",
        "pod_id",
        "seccomp",
        "started_at",
        "status",
        "stdin_once",
        "terminal",
    )  # fmt: skip

    def __init__(
        self, request: dict[str, Any], seccomp: bytes, cgroups: CgroupManager, directory: str, *, user_namespace: int = -1
    ) -> None:
        """`user_namespace`: descriptor of the pod's, -1 when it has none; it stays the caller's."""
        spec = request["spec"]
        self.id, self.pod_id, self.directory, self.cgroups = request["id"], request["pod_id"], directory, cgroups
        self.cgroup_path: str = spec["linux"]["cgroupsPath"]
        self.seccomp = seccomp
        self.log_path: str = request["log_path"]
        self.log = -1
        self.output: dict[int, LineWriter] = {}
        self.dropped = self.started_at = 0
        self.exit: dict[str, Any] | None = None
        #: with a terminal its master, which is also among `output`
        self._stdin = self.terminal = -1
        self.stdin_once: bool = request["stdin_once"]
        self._attached: list[AttachedClient] = []
        self._slow: list[socket.socket] = []
        # Known on disk before it exists: who cleans up after a dead monitor finds the cgroup here.
        exit_record.write(directory + "/containers", self.id, {"cgroup": self.cgroup_path})
        try:
            self.log = open_log(self.log_path)
            self._create(request, user_namespace)
        except BaseException:
            self.close()
            exit_record.remove(directory + "/containers", self.id)
            raise
        self.status = "created"

    def _create(self, request: dict[str, Any], user_namespace: int) -> None:
        is_terminal = bool(request["spec"]["process"].get("terminal"))
        theirs: list[int] = []
        try:
            if not is_terminal:
                theirs = self._open_stdio(keeps_stdin=request["stdin"])
            self._init = container_create.create(
                CreateRequest(
                    id=self.id,
                    spec=request["spec"],
                    root=request["root"],
                    stdio=tuple(theirs) if theirs else (0, 1, 2),  # type: ignore[arg-type]
                    seccomp=self.seccomp,
                    cgroups=self.cgroups,
                    cgroup_path=self.cgroup_path,
                    namespaces={"user": user_namespace} if user_namespace >= 0 else {},
                )
            )
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        self.pid, self.pidfd = self._init.pid, self._init.pidfd
        if is_terminal:
            os.set_blocking(self._init.console, False)
            self.terminal = self._init.console
            self.output[self.terminal] = LineWriter("stdout")
            if request["stdin"]:
                self._stdin = os.dup(self.terminal)

    def _open_stdio(self, *, keeps_stdin: bool) -> list[int]:
        if keeps_stdin:
            stdin, self._stdin = os.pipe2(os.O_CLOEXEC)
        else:
            stdin = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        theirs = [stdin]
        for stream in ("stdout", "stderr"):
            reader, writer = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(reader, False)
            self.output[reader] = LineWriter(stream)
            theirs.append(writer)
        return theirs

    def start(self) -> int:
        """Let the program run; nanoseconds since the epoch."""
        if self.status != "created":
            raise FailedPrecondition(f"container {self.id} is {self.status}, only a created one can be started")
        failpoint.hit("monitor.start.before")
        container_start.start(self._init)
        self.status = "running"
        self.started_at = time.time_ns()
        failpoint.hit("monitor.start.after")
        return self.started_at

    def read_output(self, descriptor: int) -> bool:
        """Move what has come to the log; False at its end."""
        try:
            data = os.read(descriptor, _READ)
        except BlockingIOError:
            return True
        except OSError:  # EIO: the last slave of a terminal was closed
            data = b""
        writer = self.output[descriptor]
        if self._attached and data:
            self._copy(writer.stream, data)
        self._log(writer, writer.feed(data, time.time_ns()) if data else writer.finish(time.time_ns()))
        return bool(data)

    # -- attached clients

    def attach(self, connection: socket.socket, wanted: dict[str, bool]) -> dict[str, int]:
        """Copy the output to one more client: stream → descriptor for it, "stdin" and "terminal" among them where
        there are such."""
        client = AttachedClient(connection, has_stdin=wanted["stdin"] and self._stdin >= 0)
        found: dict[str, int] = {}
        try:
            for stream in ("stdout",) if self.terminal >= 0 else ("stdout", "stderr"):
                if wanted[stream]:
                    found[stream] = client.follow(stream)
            if client.has_stdin:
                found["stdin"] = os.dup(self._stdin)
            if self.terminal in self.output:  # not after its end, when its number may be another's
                found["terminal"] = os.dup(self.terminal)
        except BaseException:
            client.close()
            for descriptor in found.values():
                os.close(descriptor)
            raise
        self._attached.append(client)
        return found

    def _copy(self, stream: str, data: bytes) -> None:
        for client in self._attached[:]:
            if not client.write(stream, data):
                self._slow.append(client.connection)
                self._forget(client)

    def slow_clients(self) -> list[socket.socket]:
        """Those that were let go since the last look."""
        slow, self._slow = self._slow, []
        return slow

    def detach(self, connection: socket.socket) -> None:
        """The client has gone."""
        for client in self._attached[:]:
            if client.connection is connection:
                self.stdin_ended(connection)
                self._forget(client)

    def _forget(self, client: AttachedClient) -> None:
        self._attached.remove(client)
        client.close()

    def stdin_ended(self, connection: socket.socket) -> None:
        """An attached client sends nothing more: the program sees that when its stdin is for one client only."""
        is_first = any(client.connection is connection and client.has_stdin for client in self._attached)
        if is_first and self.stdin_once and self._stdin >= 0:
            os.close(self._stdin)
            self._stdin = -1

    def _log(self, writer: LineWriter, lines: bytes) -> None:
        """Append `lines`. A full disk must not stop the program: what it does not take is lost, by whole lines."""
        if not lines or self.log < 0:
            return
        written = 0
        try:
            while written < len(lines):
                written += os.write(self.log, lines[written:])
        except OSError:
            half = writer.lost(lines, written)
            if half:
                _cut(self.log, half)
            self.dropped += len(lines) - written + half

    def reopen_log(self) -> None:
        """Open the log file anew at the same path."""
        if self.status != "running":
            raise FailedPrecondition(f"container {self.id} is {self.status}, only a running one's log is reopened")
        if self.log_path:
            opened = open_log(self.log_path)
            os.close(self.log)
            self.log = opened

    def ended(self, exit_code: int) -> dict[str, Any]:
        """Write down that the init has ended; the record."""
        self.exit = {
            "pod_id": self.pod_id,
            "container_id": self.id,
            "exit_code": exit_code,
            "finished_at": time.time_ns(),
            "oom_killed": False,
            "message": "",
        }
        self.status = "stopped"
        try:
            self.exit["oom_killed"] = self.cgroups.oom_kills(self.cgroup_path) > 0  # the cgroup is new with the container
            failpoint.hit("monitor.exit.before-record")
            exit_record.write(self.directory + "/exits", self.id, self.exit)
        except Exception:  # noqa: BLE001  a full disk, for instance: it is told all the same, and whoever asks hears it
            unexpected_errors.print_stack(f"recording the end of container {self.id}")
        failpoint.hit("monitor.exit.recorded")
        return self.exit

    def signal(self, number: int, *, everything: bool) -> None:
        if self.status == "stopped" and not everything:
            return
        if everything:
            for pid in self.cgroups.processes(self.cgroup_path):
                _signal_pid(pid, number)
            return
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            return
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise InvalidArgument(f"signal: {number} is none") from None

    def describe(self) -> dict[str, Any]:
        """State, PID and exit record as JSON, for a daemon that reconnects."""
        return {
            "id": self.id,
            "status": self.status,
            "pid": 0 if self.status == "stopped" else self.pid,
            "started_at": self.started_at,
            "exit": self.exit,
        }

    def close(self) -> None:
        """Give up the descriptors; what a background process still writes is lost."""
        for descriptor in (*self.output, self.log, self._stdin, getattr(self, "pidfd", -1)):
            if descriptor >= 0:
                os.close(descriptor)
        for client in self._attached[:]:
            self._forget(client)
        self.output.clear()
        self.log = self._stdin = self.pidfd = -1


def open_log(path: str) -> int:
    if not path:
        return -1
    try:
        return os.open(path, _LOG_FLAGS, 0o640)
    except OSError as error:
        raise paths.wrong_path(error, f"log_path: {path!r}") from error


def _cut(descriptor: int, count: int) -> None:
    """The last `count` bytes, off a file; a pipe cannot be cut."""
    try:
        os.ftruncate(descriptor, os.fstat(descriptor).st_size - count)
    except OSError:
        return


def _signal_pid(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
