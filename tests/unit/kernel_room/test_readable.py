"""Waiting for a descriptor of any number."""

from __future__ import annotations

import fcntl
import os
import resource

from runtime_core.kernel.readable import is_readable


def test_a_descriptor_may_have_any_number() -> None:
    """From 1024 on select(2) knows none: a pod with 300 containers has them."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    number = min(2000, hard - 1)
    reader, writer = os.pipe()
    high = fcntl.fcntl(reader, fcntl.F_DUPFD_CLOEXEC, number)
    try:
        assert not is_readable(high)
        os.write(writer, b"x")
        assert is_readable(high) and is_readable(high, 1)
        os.close(writer)
        assert os.read(high, 2) == b"x" and is_readable(high)
    finally:
        os.close(high)
        os.close(reader)
