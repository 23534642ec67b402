"""Exec: one more process in a running container.

Must run in a single-threaded process: it forks. The child is a child of the caller and of
the container's PID namespace from the start; it enters the rest itself.
"""

from __future__ import annotations

import os
import socket

from runtime_core.container import init, messages
from runtime_core.container.console import open_console
from runtime_core.container.credentials import Credentials, adjust_oom_score
from runtime_core.container.parent import kill_child
from runtime_core.container.program import Program, chown_stdio, install_stdio
from runtime_core.errors import FailedPrecondition
from runtime_core.kernel import namespaces, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime_core.interfaces.cgroup_manager import CgroupManager

_ALL = (
    syscalls.CLONE_NEWNS | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWNET | syscalls.CLONE_NEWUTS
    | syscalls.CLONE_NEWCGROUP
)  # fmt: skip
_SECONDS = 60.0  # as for create: a dead file system below the program or its directory must not block us


class ExecRequest:
    """One process to run in the container whose init is `init_pidfd`.

    `user_namespace`: descriptor of the one that the container is in, -1 when that is ours.
    """

    __slots__ = ("cgroup_path", "cgroups", "init_pidfd", "process", "seccomp", "stdio", "user_namespace")

    def __init__(
        self,
        *,
        init_pidfd: int,
        process: dict[str, Any],
        stdio: tuple[int, int, int],
        seccomp: bytes,
        cgroups: CgroupManager,
        cgroup_path: str,
        user_namespace: int = -1,
    ) -> None:
        self.init_pidfd, self.process, self.stdio = init_pidfd, process, stdio
        self.seccomp, self.cgroups, self.cgroup_path = seccomp, cgroups, cgroup_path
        self.user_namespace = user_namespace


class ExecProcess:
    """A process whose exec has succeeded; `console` is its terminal's master, or -1."""

    __slots__ = ("console", "pid", "pidfd")

    def __init__(self, pid: int, pidfd: int, console: int) -> None:
        self.pid, self.pidfd, self.console = pid, pidfd, console


def execute(request: ExecRequest) -> ExecProcess:
    """Returns once the exec has succeeded; raises its reason otherwise.

    The process leads a session of its own, by which its descendants are found again.
    """
    credentials = Credentials(request.process, request.seccomp)
    program = Program(request.process)
    ours, theirs = messages.socket_pair()
    try:
        try:
            pid, pidfd = namespaces.fork_into(request.init_pidfd, 0)
        except ProcessLookupError:
            raise FailedPrecondition("the container has ended") from None
        if pid == 0:
            _run(theirs, request, credentials, program)
        theirs.close()
        ours.settimeout(_SECONDS)
        return ExecProcess(pid, pidfd, _await_exec(ours, pid, pidfd))
    finally:
        ours.close()
        theirs.close()


def _await_exec(channel: socket.socket, pid: int, pidfd: int) -> int:
    descriptors: list[int] = []
    try:
        kind, _payload, descriptors = messages.receive(channel)
        if kind != messages.CREATED:
            raise FailedPrecondition("the process died before it was executed")
        messages.receive(channel)  # end of file: exec has closed the other end
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        kill_child(pid, pidfd)
        raise
    return descriptors[0] if descriptors else -1


def _run(channel: socket.socket, request: ExecRequest, credentials: Credentials, program: Program) -> None:
    """In the child; never returns."""
    step = init.Step()
    try:
        _enter(step, channel, request, credentials)
        step.doing = "preparing the process"
        credentials.check_privileges()
        console = _set_up_streams(request, credentials.uid)
        program.enter_directory()
        messages.send(channel, messages.CREATED, b"", console)
        for descriptor in console:
            os.close(descriptor)
        init.execute_program(credentials, program, channel)
    except Exception as error:  # noqa: BLE001  the edge of a process: the parent raises it again
        messages.send_failure(channel, error, step.doing)
    os._exit(127)


def _enter(step: init.Step, channel: socket.socket, request: ExecRequest, credentials: Credentials) -> None:
    init.detach_from_parent({channel.fileno(), request.init_pidfd, request.user_namespace, *request.stdio})
    os.setsid()
    credentials.open_label()
    step.doing = "setting oom_score_adj"
    if credentials.oom_score_adj is not None:
        adjust_oom_score(credentials.oom_score_adj)
    step.doing = "joining cgroups"
    request.cgroups.attach(request.cgroup_path, 0)
    step.doing = "giving the standard streams to the user"
    owner = init.host_uid(credentials, request.user_namespace)
    if not request.process.get("terminal"):
        chown_stdio(request.stdio, owner)
    step.doing = "entering the container"
    has_user_namespace = request.user_namespace >= 0
    try:
        syscalls.setns(request.init_pidfd, _ALL | (syscalls.CLONE_NEWUSER if has_user_namespace else 0))
    except ProcessLookupError:
        raise FailedPrecondition("the container has ended") from None
    os.close(request.init_pidfd)
    if has_user_namespace:
        os.close(request.user_namespace)
        init.become_root()
    syscalls.new_session_keyring("trivet")


def _set_up_streams(request: ExecRequest, uid: int) -> tuple[int, ...]:
    if request.process.get("terminal"):
        return (open_console(request.process.get("consoleSize") or {}, uid, at_dev_console=False),)
    install_stdio(request.stdio)
    return ()
