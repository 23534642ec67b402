"""Waiting for one descriptor, of whatever number: select(2) refuses those from 1024 on. Cold."""

from __future__ import annotations

import select


def is_readable(descriptor: int, seconds: float = 0) -> bool:
    """Whether there is something to read, or an end, within `seconds`."""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(seconds * 1000))
