"""Waiting for programs that have no way to say that they are ready."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")
_STEP = 0.1


def wait_for(what: str, look: Callable[[], Found], seconds: float = 60) -> Found:
    """The first true answer of `look`; AssertionError naming `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(_STEP)
