"""Exec: one more process in a running container.

Must run in a single-threaded process: it forks. A middle process enters the container's
cgroups and namespaces, and forks the real one as a child of the caller.
"""

from __future__ import annotations

import os
import socket

from runtime_core.container import messages
from runtime_core.container.credentials import Credentials
from runtime_core.container.init import Program, Step, take_stdio
from runtime_core.errors import FailedPrecondition
from runtime_core.kernel import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime_core.interfaces.cgroup_manager import CgroupManager

_ALL = (
    syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWNET
    | syscalls.CLONE_NEWUTS | syscalls.CLONE_NEWCGROUP
)  # fmt: skip
_SIGKILL = 9


class ExecRequest:
    """One process to run in the container whose init is `init_pidfd`."""

    __slots__ = ("cgroup_path", "cgroups", "init_pidfd", "process", "seccomp", "stdio")

    def __init__(
        self,
        *,
        init_pidfd: int,
        process: dict[str, Any],
        stdio: tuple[int, int, int],
        seccomp: bytes,
        cgroups: CgroupManager,
        cgroup_path: str,
    ) -> None:
        self.init_pidfd, self.process, self.stdio = init_pidfd, process, stdio
        self.seccomp, self.cgroups, self.cgroup_path = seccomp, cgroups, cgroup_path


def execute(request: ExecRequest) -> tuple[int, int]:
    """(pid, pidfd) of the process, once its exec has succeeded; raises its reason otherwise.

    It leads a session of its own, by which its descendants are found again.
    """
    ours, theirs = messages.pair()
    middle = os.fork()
    if middle == 0:
        ours.close()
        _join_and_fork(request, theirs)
    theirs.close()
    pid = 0
    try:
        kind, payload, descriptors = messages.receive(ours)
        if kind != messages.PID:
            raise FailedPrecondition("the container has ended")
        pid = int(payload)
        os.waitpid(middle, 0)
        middle = 0
        messages.receive(ours)  # end of file: exec has closed the other end
    except BaseException:
        for child in filter(None, (middle, pid)):
            os.waitpid(child, 0)
        raise
    finally:
        ours.close()
    return pid, descriptors[0]


def _join_and_fork(request: ExecRequest, channel: socket.socket) -> None:
    """In the middle process; never returns."""
    step = Step()
    try:
        credentials = Credentials(request.process, request.seccomp)
        program = Program(request.process)
        step.doing = "entering the container"
        request.cgroups.attach(request.cgroup_path, os.getpid())
        _enter(request.init_pidfd)
        pid, pidfd = syscalls.clone3(syscalls.CLONE_PARENT, 0)
        if pid == 0:
            _run(step, channel, credentials, program, request.stdio)
        messages.send(channel, messages.PID, str(pid).encode(), (pidfd,))
    except Exception as error:  # noqa: BLE001  the edge of a process: the parent raises it again
        messages.send_failure(channel, error, step.doing)
        os._exit(127)
    os._exit(0)


def _enter(init_pidfd: int) -> None:
    try:
        syscalls.setns(init_pidfd, _ALL)
    except ProcessLookupError:
        raise FailedPrecondition("the container has ended") from None


def _run(
    step: Step, channel: socket.socket, credentials: Credentials, program: Program, stdio: tuple[int, int, int]
) -> None:
    step.doing = "preparing the process"
    os.setsid()
    take_stdio(stdio)
    program.enter_directory()
    credentials.apply()
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, _SIGKILL)
    syscalls.close_range(3, flags=syscalls.CLOSE_RANGE_CLOEXEC)
    program.execute()
