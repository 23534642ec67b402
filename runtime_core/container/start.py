"""Start: let the program of a created container run."""

from __future__ import annotations

from runtime_core.container import messages
from runtime_core.errors import FailedPrecondition

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime_core.container.parent import Init


def start(init: Init) -> None:
    """Returns once exec has succeeded; raises its reason (NotFound, PermissionDenied, …) otherwise.

    The channel is closed in both cases: a container is started once.
    """
    try:
        messages.send(init.channel, messages.START)
        messages.receive(init.channel)  # end of file: exec has closed the other end
    except BrokenPipeError:
        raise FailedPrecondition("the container's init has died before it was started") from None
    finally:
        init.channel.close()
