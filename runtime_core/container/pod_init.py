"""PID 1 of a pod whose containers share a PID namespace: it reaps, and nothing else.

It stands in a file tree of its own that is empty, without any capability, so that a
container that looks at /proc/1 finds nothing of the host.
"""

from __future__ import annotations

import os
import signal
import socket

from runtime_core.container import init, messages, rootfs
from runtime_core.container.parent import kill_child
from runtime_core.errors import FailedPrecondition
from runtime_core.kernel import mounts, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_NAMESPACES = syscalls.CLONE_NEWPID | syscalls.CLONE_NEWNS
_AWAITED = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT}


def fork(join_cgroup: Callable[[], None] | None = None, clone: Callable[[int], tuple[int, int]] = syscalls.clone3) -> int:
    """PID of the new process, once it is ready.

    `join_cgroup` is called in it, where CgroupManager.attach(path, 0) costs little. `clone` forks with
    the namespaces of these flags, and may add some.
    """
    ours, theirs = messages.socket_pair()
    with ours, theirs:
        pid, pidfd = clone(_NAMESPACES)
        if pid == 0:
            _run(theirs, join_cgroup)
        theirs.close()
        try:
            kind, _payload, _descriptors = messages.receive(ours)
            if kind != messages.CREATED:
                raise FailedPrecondition("the pod's first process died while it was set up")
        except BaseException:
            kill_child(pid, pidfd)
            raise
    os.close(pidfd)
    return pid


def _run(channel: socket.socket, join_cgroup: Callable[[], None] | None) -> None:
    try:
        init.detach_from_parent({channel.fileno()})
        signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
        syscalls.set_process_name("trivet-pause")
        os.setsid()
        if join_cgroup is not None:
            join_cgroup()
        _enter_empty_root()
        syscalls.capset(0, 0, 0)
        messages.send(channel, messages.CREATED)
        syscalls.close_all_except(set())
        _reap()
    except Exception as error:  # noqa: BLE001  the edge of a process: the parent raises it again
        messages.send_failure(channel, error, "making the pod's first process")
    os._exit(1)


def _enter_empty_root() -> None:
    tree = mounts.filesystem("tmpfs", ("size=4k",), syscalls.MOUNT_ATTR_RDONLY)
    rootfs.attach_root(tree)
    rootfs.pivot(tree)


def _reap() -> None:
    """Wait for orphans for ever. The signals that would end a pod are taken and ignored: it ends by SIGKILL."""
    while True:
        signal.sigwait(_AWAITED)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                continue
        except ChildProcessError:
            continue
