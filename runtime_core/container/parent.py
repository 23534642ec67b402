"""The parent's side of a container: the fork, with the namespaces that it makes and joins.

Theory of operation. The child is always a child of the caller. A new PID namespace comes
with clone3; one to be joined is set for the caller's children around the fork. A user
namespace needs a process in between: what the host provides must be gathered before it is
entered, and the other namespaces be made after, so that it owns them.
"""

from __future__ import annotations

import os
import select
import signal
import socket

from runtime_core.container import init, messages
from runtime_core.errors import FailedPrecondition, InvalidArgument, NotFound, TrivetError, from_oserror
from runtime_core.kernel import namespaces, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime_core.container.request import CreateRequest


_END_MILLISECONDS = 5000
_GATHER_SECONDS = 60.0


class Init:
    """A created container: its first process, and the channel that starts it."""

    __slots__ = ("channel", "console", "pid", "pidfd")

    def __init__(self, pid: int, pidfd: int, channel: socket.socket, console: int = -1) -> None:
        self.pid, self.pidfd, self.channel, self.console = pid, pidfd, channel, console


def fork(request: CreateRequest) -> Init:
    """Fork the init of `request`; in the child this never returns."""
    wanted = request.spec["linux"].get("namespaces") or []
    joined = _open(wanted)
    opened = list(joined.values())
    try:
        joined |= request.namespaces
        made = {entry["type"] for entry in wanted} - joined.keys() - _already_in(wanted, joined)
        ours, theirs = messages.socket_pair()
        try:
            if "user" in joined:
                pid, pidfd = _fork_intermediate(request, joined, made, ours, theirs)
            else:
                pid, pidfd = _fork(request, joined, made, ours, theirs)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return Init(pid, pidfd, ours)


def kill_child(pid: int, pidfd: int) -> None:
    """Kill and reap a child that will not be used; one that hangs in the kernel stays."""
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    poller.poll(_END_MILLISECONDS)
    os.close(pidfd)
    os.waitpid(pid, os.WNOHANG)


def died(request: CreateRequest, what: str) -> TrivetError:
    """Why a process of `request` ended without a word: the kernel kills in silence what goes past its memory limit."""
    limit = ((request.spec["linux"].get("resources") or {}).get("memory") or {}).get("limit")
    if limit and request.cgroups.oom_kills(request.cgroup_path):
        return InvalidArgument(f"linux.resources.memory.limit: {limit} bytes are fewer than the container's init needs")
    return FailedPrecondition(f"container {request.id}: {what}")


def _open(wanted: list[dict[str, str]]) -> dict[str, int]:
    """Descriptors of the namespaces with a path that this process is not already in."""
    found: dict[str, int] = {}
    try:
        for entry in wanted:
            kind, path = entry["type"], entry.get("path")
            if not path:
                continue
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            if namespaces.is_own(descriptor, kind):
                os.close(descriptor)
            else:
                found[kind] = descriptor
    except OSError as error:
        for descriptor in found.values():
            os.close(descriptor)
        if isinstance(error, FileNotFoundError):
            raise NotFound(f"linux.namespaces: {path!r} of type {kind!r} does not exist") from None
        raise from_oserror(error, f"linux.namespaces: opening {path!r} of type {kind!r}") from error
    return found


def _already_in(wanted: list[dict[str, str]], joined: dict[str, int]) -> set[str]:
    return {entry["type"] for entry in wanted if entry.get("path") and entry["type"] not in joined}


def _flags(made: set[str]) -> int:
    return namespaces.flags_of(made - {"cgroup"})  # that one is made when the cgroups are joined


def _fork(
    request: CreateRequest, joined: dict[str, int], made: set[str], ours: socket.socket, theirs: socket.socket
) -> tuple[int, int]:
    if "user" in made:
        raise FailedPrecondition("linux.namespaces: a user namespace must be made by the pod, and joined by path")
    if "pid" in joined:
        pid, pidfd = namespaces.fork_into(joined["pid"], _flags(made))
    else:
        pid, pidfd = syscalls.clone3(_flags(made), signal.SIGCHLD)
    if pid == 0:
        ours.close()
        init.run(theirs, request, joined, made)
    return pid, pidfd


def _fork_intermediate(
    request: CreateRequest, joined: dict[str, int], made: set[str], ours: socket.socket, theirs: socket.socket
) -> tuple[int, int]:
    reader, writer = messages.socket_pair()
    middle, middle_fd = syscalls.clone3(0, signal.SIGCHLD)
    if middle == 0:
        ours.close()
        reader.close()
        init.run_intermediate(theirs, writer, request, joined, made)
    writer.close()
    reader.settimeout(_GATHER_SECONDS)
    try:
        kind, payload, descriptors = messages.receive(reader)
    finally:
        reader.close()
        kill_child(middle, middle_fd)  # its work is done, or has failed
    if kind != messages.PID:
        raise died(request, "the process that enters the user namespace died")
    return int(payload), descriptors[0]
