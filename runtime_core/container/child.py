"""Work done by a child of its own, for what it leaves behind goes with it. Cold."""

from __future__ import annotations

import os
import signal

from runtime_core.container import messages
from runtime_core.errors import FailedPrecondition
from runtime_core.kernel import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def in_child(doing: str, work: Callable[[], tuple[int, ...]], flags: int = 0) -> list[int]:
    """Do `work` in a child, made by clone3 with `flags`; the descriptors that it answers. Raises what it raised."""
    ours, theirs = messages.pair()
    with ours, theirs:
        pid, pidfd = syscalls.clone3(flags, signal.SIGCHLD)
        if pid == 0:
            try:
                messages.send(theirs, messages.CREATED, descriptors=work())
            except Exception as error:  # noqa: BLE001  the edge of a process: the parent raises it again
                messages.send_failure(theirs, error, doing)
            os._exit(0)
        theirs.close()
        try:
            kind, _payload, descriptors = messages.receive(ours)
        finally:
            os.close(pidfd)
            os.waitpid(pid, 0)
    if kind != messages.CREATED:
        raise FailedPrecondition(f"{doing}: the process that does it died")
    return descriptors
