"""The kernel's own events of devices (netlink(7), NETLINK_KOBJECT_UEVENT), waited for without a udevd. Cold."""

from __future__ import annotations

import select
import socket
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_PROTOCOL, _OF_KERNEL = 15, 1
#: seconds between two looks where no event comes: no socket is to be had, or a user namespace owns the network namespace
_FIRST_LOOK, _LONGEST_LOOK = 0.002, 0.25


def wait_until(done: Callable[[], bool], seconds: float) -> bool:
    """Look at each event whether it is `done`, for so long at most; whether it is.

    An event that comes between the first look and the waiting is not missed.
    """
    deadline, look = time.monotonic() + seconds, _FIRST_LOOK
    poll = select.poll()
    events = _events()
    try:
        if events is not None:
            poll.register(events, select.POLLIN)
        while not done():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            if poll.poll(1000 * min(left, look)) and events is not None:
                _drain(events)
            look = min(2 * look, _LONGEST_LOOK)
    finally:
        if events is not None:
            events.close()
    return True


def _events() -> socket.socket | None:
    """None where a sandbox around this process has no netlink."""
    try:
        events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, _PROTOCOL)
    except OSError:
        return None
    events.bind((0, _OF_KERNEL))
    return events


def _drain(events: socket.socket) -> None:
    """What they say does not matter: something has changed. ENOBUFS: more came than were kept, which says the same."""
    try:
        while True:
            events.recv(8192)
    except OSError:
        return
