"""Create: everything of a container but the exec of its program.

Must run in a single-threaded process (the monitor, or the OCI command): it forks.
"""

from __future__ import annotations

import os
import signal
import socket

from runtime_core.container import init, messages
from runtime_core.errors import FailedPrecondition, InvalidArgument
from runtime_core.kernel import failpoint, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime_core.interfaces.cgroup_manager import CgroupManager

_FLAGS = {
    "pid": syscalls.CLONE_NEWPID,
    "mount": syscalls.CLONE_NEWNS,
    "network": syscalls.CLONE_NEWNET,
    "ipc": syscalls.CLONE_NEWIPC,
    "uts": syscalls.CLONE_NEWUTS,
}
_PROC_NAMES = {"network": "net", "mount": "mnt"}


class CreateRequest:
    """One container to create: its OCI spec, its root mount, its stdio, its cgroup."""

    __slots__ = ("cgroup_path", "cgroups", "id", "root", "seccomp", "spec", "stdio")

    def __init__(
        self,
        *,
        id: str,  # noqa: A002  the OCI name
        spec: dict[str, Any],
        root: dict[str, Any],
        stdio: tuple[int, int, int],
        seccomp: bytes,
        cgroups: CgroupManager,
        cgroup_path: str,
    ) -> None:
        self.id, self.spec, self.root, self.stdio = id, spec, root, stdio
        self.seccomp, self.cgroups, self.cgroup_path = seccomp, cgroups, cgroup_path


class Init:
    """A created container: its first process, and the channel that starts it."""

    __slots__ = ("channel", "console", "pid", "pidfd")

    def __init__(self, pid: int, pidfd: int, channel: socket.socket, console: int) -> None:
        self.pid, self.pidfd, self.channel, self.console = pid, pidfd, channel, console


def create(request: CreateRequest) -> Init:
    """Fork the container's init and let it set everything up.

    Raises what init reported, with its step and path; then nothing is left of the container.
    """
    linux = request.spec["linux"]
    request.cgroups.create(request.cgroup_path, linux.get("resources") or {})
    failpoint.hit("container.create.cgroup")
    try:
        return _fork(request, linux.get("namespaces") or [])
    except BaseException:
        request.cgroups.destroy(request.cgroup_path)
        raise


def _fork(request: CreateRequest, namespaces: list[dict[str, str]]) -> Init:
    ours, theirs = messages.pair()
    joined = _to_join(namespaces)
    flags = 0
    for namespace in namespaces:
        if not namespace.get("path"):
            flags |= _FLAGS.get(namespace["type"], 0)
            if namespace["type"] == "user":
                raise InvalidArgument("linux.namespaces: a user namespace is not made by this version")
    try:
        pid, pidfd = _fork_joined(joined, flags) if joined else syscalls.clone3(flags, signal.SIGCHLD)
        if pid == 0:
            ours.close()
            init.run(theirs, request.spec, request.root, request.seccomp, request.stdio)
    finally:
        for descriptor in joined:
            os.close(descriptor)
    theirs.close()
    try:
        request.cgroups.attach(request.cgroup_path, pid)
        failpoint.hit("container.create.forked")
        messages.send(ours, messages.JOINED)
        kind, _payload, descriptors = messages.receive(ours)
        if kind != messages.CREATED:
            raise FailedPrecondition(f"container {request.id}: its init died while it was set up")
    except BaseException:
        ours.close()
        end(pid, pidfd)
        raise
    return Init(pid, pidfd, ours, descriptors[0] if descriptors else -1)


def _to_join(namespaces: list[dict[str, str]]) -> list[int]:
    """Descriptors of the namespaces with a path that this process is not already in."""
    found = []
    for namespace in namespaces:
        path = namespace.get("path")
        if not path:
            continue
        name = _PROC_NAMES.get(namespace["type"], namespace["type"])
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        there, here = os.fstat(descriptor), os.stat(f"/proc/self/ns/{name}")
        if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
            os.close(descriptor)
        else:
            found.append(descriptor)
    return found


def _fork_joined(joined: list[int], flags: int) -> tuple[int, int]:
    """Fork through a middle process that joins namespaces first; a PID namespace takes only children in."""
    reader, writer = messages.pair()
    middle = os.fork()
    if middle == 0:
        try:
            for descriptor in joined:
                syscalls.setns(descriptor, 0)
            pid, pidfd = syscalls.clone3(flags | syscalls.CLONE_PARENT, 0)
            if pid == 0:
                writer.close()
                reader.close()
                return 0, -1
            messages.send(writer, messages.PID, str(pid).encode(), (pidfd,))
        except OSError as error:
            messages.send_failure(writer, error, "joining namespaces")
        os._exit(0)
    writer.close()
    try:
        kind, payload, descriptors = messages.receive(reader)
    finally:
        reader.close()
        os.waitpid(middle, 0)
    if kind != messages.PID:
        raise FailedPrecondition("the process that joins namespaces died")
    return int(payload), descriptors[0]


def end(pid: int, pidfd: int) -> None:
    """Kill and reap a child that will not be used."""
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    os.close(pidfd)
    os.waitpid(pid, 0)
