"""The monitor: one process per pod, which starts its containers and keeps their output and exits.

Theory of operation. Forked by the launcher, detached from the daemon, it makes the pod's
namespaces in itself, forks the containers, copies their output to the log files, reaps
them and writes each exit to disk before it tells anybody. It is one epoll loop; what it
does for a container takes milliseconds, and waiting happens in the loop alone. The
daemon talks to it over <pod directory>/monitor.sock and may come and go.

Requests:  {"id", "op", …} → {"id", "result"} or {"id", "error": {"kind", "message"}}.
Events, to every connection: {"event": "exit", …}; to who asked: {"event": "exec_exit", …}.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed leaves it out
import errno
import gc
import json
import os
import select
import signal
import socket

from runtime_core.container import exec as container_exec
from runtime_core.errors import AlreadyExists, FailedPrecondition, NotFound, TrivetError, name_of_kind
from runtime_core.kernel import entry_point, failpoint, syscalls, unexpected_errors
from runtime_core.kernel.readable import is_readable
from runtime_core.launcher import messages
from runtime_core.monitor import exit_record, pod
from runtime_core.monitor.container import Container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

_DRAIN_READS = 256
_DONTWAIT = int(socket.MSG_DONTWAIT)  # a plain number: the enumeration runs Python code on shared pages


def main(argument: dict[str, Any], descriptors: list[int]) -> None:
    """The launcher's job: `argument` is {"pod": PodSpec, "cgroups": "module:class"}; descriptors[0] hears "ready"."""
    # A collection writes into the head of every young object, on pages that are then this process's own.
    # Nothing here makes cycles; what is dropped goes by its reference count.
    gc.disable()
    ready = descriptors[0]
    try:
        monitor = Monitor(argument["pod"], argument["cgroups"])
    except Exception as error:  # noqa: BLE001  the edge of a process: the daemon raises it again
        os.write(ready, json.dumps({"error": _describe(error)}).encode())
        return
    os.write(ready, json.dumps({"ready": os.getpid(), "init": monitor.pod_init}).encode())
    os.close(ready)
    monitor.serve()


class Monitor:
    def __init__(self, spec: dict[str, Any], cgroups: str) -> None:

        syscalls.set_process_name("trivet-monitor")
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
        os.setsid()
        self._spec = spec
        self._directory: str = spec["directory"]
        self._cgroups = entry_point.load(cgroups)()
        self._containers: dict[str, Container] = {}
        self._children: dict[int, Callable[[int], None]] = {}
        #: PID → who asked for this exec, and in which container
        self._execs: dict[int, tuple[socket.socket, Container]] = {}
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._connections: dict[int, socket.socket] = {}
        self._is_ending = False
        self._catch_children()
        path = spec["cgroup_path"] if spec["pid_mode"] == "pod" else ""
        if path:
            self._cgroups.create(path, {})
        self.pod_init, self._user_namespace = pod.open_namespaces(
            spec, lambda pid: self._cgroups.attach(path, pid) if path else None
        )
        os.chdir(self._directory)  # a socket's name holds 107 bytes: it is bound by its last part
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        self._listener.bind("monitor.sock")
        os.chmod("monitor.sock", 0o600)
        self._listener.listen(8)
        self._watch(self._listener.fileno(), self._accept)
        #: descriptors without which the monitor is deaf
        self._kept = frozenset(self._handlers)

    def serve(self) -> None:
        """The event loop; returns when the daemon has said so (`shutdown`)."""
        while not self._is_ending:
            for descriptor, _event in self._epoll.poll():
                handler = self._handlers.get(descriptor)
                if handler is not None:
                    self._handle(descriptor, handler)

    def _handle(self, descriptor: int, handler: Callable[[], None]) -> None:
        """What nobody foresaw costs what it was for, an output or a connection, and never the pod."""
        try:
            handler()
        except Exception:  # noqa: BLE001  the containers are children of this process, and would die with it
            unexpected_errors.print_stack("in a monitor")
            if descriptor not in self._kept:
                self._unwatch(descriptor)  # or the loop would turn and turn

    def _watch(self, descriptor: int, handler: Callable[[], None]) -> None:
        self._handlers[descriptor] = handler
        self._epoll.register(descriptor, select.EPOLLIN)

    def _unwatch(self, descriptor: int) -> None:
        if self._handlers.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    # -- connections

    def _accept(self) -> None:
        # Not accept(), which makes enumerations of family and type: Python code on pages that are shared until then.
        descriptor, _address = self._listener._accept()  # type: ignore[attr-defined]
        connection = socket.socket(fileno=descriptor)
        self._connections[connection.fileno()] = connection
        self._watch(connection.fileno(), lambda: self._serve(connection))

    def _serve(self, connection: socket.socket) -> None:
        try:
            request, descriptors = messages.receive(connection, _DONTWAIT)
        except BlockingIOError:
            return  # the event was for whoever had this descriptor before
        except Exception as error:  # noqa: BLE001  who sends what is no message is nobody to talk to
            if not isinstance(error, (EOFError, OSError)):
                unexpected_errors.print_stack("receiving a message")
            self._drop(connection)
            return
        reply: dict[str, Any] = {"id": request.get("id")}
        handed: list[int] = []
        try:
            result = _OPERATIONS[request["op"]](self, request, descriptors, connection)
            reply["result"], handed = result if isinstance(result, tuple) else (result, handed)
        except Exception as error:  # noqa: BLE001  the edge of a process: the daemon raises it again
            reply["error"] = _describe(error)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        self._send(connection, reply, handed)
        for descriptor in handed:
            os.close(descriptor)

    def _send(self, connection: socket.socket, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        try:
            messages.send(connection, message, descriptors)
        except (OSError, TrivetError):  # who gets no answer must not wait for one
            self._drop(connection)

    def _drop(self, connection: socket.socket) -> None:
        """What was begun for this connection ends with it: execs are killed, attached clients forgotten."""
        if self._connections.pop(connection.fileno(), None) is None:
            return
        self._unwatch(connection.fileno())
        connection.close()
        for pid, (asker, container) in list(self._execs.items()):
            if asker is connection:
                self._kill_family(container, pid)
        for container in self._containers.values():
            container.detach(connection)

    # -- children

    def _catch_children(self) -> None:
        wakeup, notify = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        # Without the wrapper of `signal`, which makes members of enumerations of the numbers: code on shared pages.
        _signal.signal(_signal.SIGCHLD, lambda _number, _frame: None)
        _signal.signal(_signal.SIGTERM, _signal.SIG_IGN)
        signal.set_wakeup_fd(notify, warn_on_full_buffer=False)
        self._watch(wakeup, lambda: self._reap(wakeup))

    def _reap(self, wakeup: int) -> None:
        os.read(wakeup, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            ended = self._children.pop(pid, None)
            if ended is not None:
                self._handle(wakeup, lambda: ended(code if code >= 0 else 128 - code))  # noqa: B023  called here and now

    def _container_ended(self, container: Container, exit_code: int) -> None:
        for descriptor in list(container.output):
            self._handle(descriptor, lambda: self._drain(container, descriptor))  # noqa: B023  called here and now
        container.signal(signal.SIGKILL, everything=True)
        record = container.ended(exit_code)
        for connection in list(self._connections.values()):
            self._send(connection, {"event": "exit", **record})

    def _drain(self, container: Container, descriptor: int) -> None:
        """What is in the pipe belongs before the exit."""
        for _read in range(_DRAIN_READS):
            if not is_readable(descriptor) or not self._read_output(container, descriptor):
                break

    def _reader(self, container: Container, descriptor: int) -> Callable[[], None]:
        def read() -> None:
            self._read_output(container, descriptor)

        return read

    def _read_output(self, container: Container, descriptor: int) -> bool:
        if descriptor in container.output and container.read_output(descriptor):
            for connection in container.slow_clients():
                self._send(connection, {"event": "detached", "reason": "the client reads more slowly than the container writes"})
            return True
        if container.output.pop(descriptor, None) is not None:
            self._unwatch(descriptor)
            os.close(descriptor)
        return False

    # -- operations

    def _create(self, request: dict[str, Any], descriptors: list[int], _connection: socket.socket) -> dict[str, Any]:
        if request["container"]["id"] in self._containers:
            raise AlreadyExists(f"container {request['container']['id']} exists")
        failpoint.hit("monitor.create.begun")
        container = Container(
            request["container"], read_filter(descriptors), self._cgroups, self._directory, user_namespace=self._user_namespace
        )
        self._containers[container.id] = container
        self._children[container.pid] = lambda code: self._container_ended(container, code)
        for descriptor in container.output:
            self._watch(descriptor, self._reader(container, descriptor))
        failpoint.hit("monitor.create.done")
        return {"pid": container.pid}

    def _start(self, request: dict[str, Any], _descriptors: list[int], _connection: socket.socket) -> dict[str, Any]:
        return {"started_at": self._get(request).start()}

    def _kill(self, request: dict[str, Any], _descriptors: list[int], _connection: socket.socket) -> dict[str, Any]:
        self._get(request).signal(request["signal"], everything=request["everything"])
        return {}

    def _delete(self, request: dict[str, Any], _descriptors: list[int], _connection: socket.socket) -> dict[str, Any]:
        container = self._containers.pop(request["container_id"], None)
        if container is not None:
            for descriptor in container.output:
                self._unwatch(descriptor)
            self._children.pop(container.pid, None)
            self._cgroups.destroy(container.cgroup_path)
            container.close()
        for directory in ("containers", "exits"):
            exit_record.remove(f"{self._directory}/{directory}", request["container_id"])
        return {}

    def _exec(
        self, request: dict[str, Any], descriptors: list[int], connection: socket.socket
    ) -> tuple[dict[str, Any], list[int]]:
        """The process's stdin, stdout and stderr came along; a terminal's master goes back."""
        container = self._running(request)
        if request.get("session"):
            connection.setblocking(False)  # a session that does not read is dropped, not waited for
        executed = container_exec.execute(
            container_exec.ExecRequest(
                init_pidfd=container.pidfd,
                process=request["process"],
                stdio=tuple(descriptors) if descriptors else (0, 1, 2),  # type: ignore[arg-type]
                seccomp=container.seccomp,
                cgroups=self._cgroups,
                cgroup_path=container.cgroup_path,
                user_namespace=self._user_namespace,
            )
        )
        os.close(executed.pidfd)
        self._execs[executed.pid] = (connection, container)
        self._children[executed.pid] = lambda code: self._exec_ended(executed.pid, request["exec_id"], code)
        return {"pid": executed.pid}, [executed.console] if executed.console >= 0 else []

    def _exec_ended(self, pid: int, exec_id: str, exit_code: int) -> None:
        connection, _container = self._execs.pop(pid)
        self._send(connection, {"event": "exec_exit", "exec_id": exec_id, "exit_code": exit_code})

    def _exec_kill(self, request: dict[str, Any], _descriptors: list[int], _connection: socket.socket) -> dict[str, Any]:
        self._kill_family(self._get(request), request["pid"])
        return {}

    def _kill_family(self, container: Container, leader: int) -> None:
        for pid in process_tree(leader, self._cgroups.processes(container.cgroup_path)):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def _attach(
        self, request: dict[str, Any], _descriptors: list[int], connection: socket.socket
    ) -> tuple[dict[str, Any], list[int]]:
        container = self._running(request)
        connection.setblocking(False)  # as for an exec
        streams = container.attach(connection, request)
        return {"streams": list(streams)}, list(streams.values())

    def _close_stdin(self, request: dict[str, Any], _descriptors: list[int], connection: socket.socket) -> dict[str, Any]:
        self._get(request).stdin_ended(connection)
        return {}

    def _reopen_log(self, request: dict[str, Any], _descriptors: list[int], _connection: socket.socket) -> dict[str, Any]:
        self._get(request).reopen_log()
        return {}

    def _state(self, _request: dict[str, Any], _descriptors: list[int], _connection: socket.socket) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "init": self.pod_init,
            "containers": [container.describe() for container in self._containers.values()],
        }

    def _shutdown(self, _request: dict[str, Any], _descriptors: list[int], _connection: socket.socket) -> dict[str, Any]:
        for container in self._containers.values():
            self._cgroups.destroy(container.cgroup_path)
        failpoint.hit("monitor.shutdown.killed")
        if self.pod_init:
            os.kill(self.pod_init, signal.SIGKILL)
            if self._spec["cgroup_path"]:
                self._cgroups.destroy(self._spec["cgroup_path"])
        self._is_ending = True
        return {}

    def _running(self, request: dict[str, Any]) -> Container:
        container = self._get(request)
        if container.status != "running":
            raise FailedPrecondition(f"container {container.id} is {container.status}, not running")
        return container

    def _get(self, request: dict[str, Any]) -> Container:
        container = self._containers.get(request["container_id"])
        if container is None:
            raise NotFound(f"container {request['container_id']} is not in this pod")
        return container


_OPERATIONS: dict[str, Any] = {
    "create": Monitor._create,
    "start": Monitor._start,
    "kill": Monitor._kill,
    "delete": Monitor._delete,
    "exec": Monitor._exec,
    "exec_kill": Monitor._exec_kill,
    "attach": Monitor._attach,
    "close_stdin": Monitor._close_stdin,
    "reopen_log": Monitor._reopen_log,
    "state": Monitor._state,
    "shutdown": Monitor._shutdown,
}


def read_filter(descriptors: list[int]) -> bytes:
    """The compiled seccomp program that came along, or b""."""
    if not descriptors:
        return b""
    size = os.fstat(descriptors[0]).st_size
    return os.pread(descriptors[0], size, 0)


def process_tree(leader: int, candidates: list[int]) -> list[int]:
    """`leader`, the processes of its session, and all their descendants, among `candidates`."""
    parents: dict[int, tuple[int, int]] = {}
    for pid in candidates:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        parents[pid] = (int(fields[1]), int(fields[3]))
    found = {pid for pid, (_parent, session) in parents.items() if session == leader or pid == leader}
    while True:
        more = {pid for pid, (parent, _session) in parents.items() if parent in found} - found
        if not more:
            return sorted(found)
        found |= more


def _describe(error: Exception) -> dict[str, str]:
    named = unexpected_errors.to_trivet_error(
        error, errno.errorcode.get(error.errno or 0, "error") if isinstance(error, OSError) else "monitor"
    )
    return {"kind": name_of_kind(named), "message": str(named)}
