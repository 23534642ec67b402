"""Sizes: rounded to what a back end can hold, and held against the space that is there."""

from __future__ import annotations

import os

from runtime_core.errors import OutOfRange, ResourceExhausted
from runtime_core.interfaces.volume import Capacity, Usage

MIB = 1 << 20
#: what stays free when a quota refuses to give more: less than a write needs with its metadata
FULL_TOLERANCE = 64 << 10
#: 8 EiB less one unit: the largest file offset
LARGEST = (1 << 63) - MIB


def round_up(required: int, limit: int, smallest: int, unit: int = MIB) -> int:
    """The next multiple of `unit` that is no smaller than `required` and `smallest`."""
    size = -(-max(required, smallest) // unit) * unit
    if limit and limit < size:
        # the limit itself may be a size, where rounding up went beyond it
        down = limit // 4096 * 4096
        if down < max(required, smallest):
            raise OutOfRange(f"capacity_range.limit_bytes: {limit} is below {size}, the smallest volume of {required} bytes")
        return down
    if size > LARGEST:
        raise OutOfRange(f"capacity_range.required_bytes: {required} is more than a volume can have")
    return size


def capacity(directory: str, smallest: int) -> Capacity:
    """Of the file system that `directory` lies on."""
    status = os.statvfs(directory)
    available, total = status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
    return Capacity(available, total, smallest, available // MIB * MIB)


def check_free_space(directory: str, size: int) -> None:
    """ResourceExhausted when less than `size` bytes are free."""
    available = capacity(directory, 0).available
    if size > available:
        raise ResourceExhausted(f"{size} bytes are asked for, {available} are free below {directory}")


def mount_usage(path: str) -> Usage:
    """What statfs(2) says of the file system mounted at `path`."""
    status = os.statvfs(path)
    unit = status.f_frsize
    return Usage(
        total=status.f_blocks * unit,
        available=status.f_bavail * unit,
        used=(status.f_blocks - status.f_bfree) * unit,
        inodes=(status.f_files, status.f_favail, status.f_files - status.f_ffree),
    )
