"""Runs a function in a child process, so that the memory it uses is freed with it. Cold."""

from __future__ import annotations

import os
import signal

from runtime_core.container import messages
from runtime_core.errors import FailedPrecondition
from runtime_core.kernel import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def run_in_process(action: str, function: Callable[[], tuple[int, ...]], flags: int = 0) -> list[int]:
    """Call `function` in a child process, made by clone3 with `flags`; the descriptors that it returns. Raises what it raised."""
    ours, theirs = messages.socket_pair()
    with ours, theirs:
        pid, pidfd = syscalls.clone3(flags, signal.SIGCHLD)
        if pid == 0:
            try:
                messages.send(theirs, messages.CREATED, descriptors=function())
            except Exception as error:  # noqa: BLE001  the edge of a process: the parent raises it again
                messages.send_failure(theirs, error, action)
            os._exit(0)
        theirs.close()
        try:
            kind, _payload, descriptors = messages.receive(ours)
        finally:
            os.close(pidfd)
            os.waitpid(pid, 0)
    if kind != messages.CREATED:
        raise FailedPrecondition(f"{action}: the process that does it died")
    return descriptors
