"""Image files: created, filled from another, grown, attached to loop devices, copied at one instant."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from runtime_core.errors import ResourceExhausted, Unavailable
from runtime_core.kernel import failpoint, filesystems, loop_device
from runtime_core.volumes import sizes

NAME = "image"
_UNFINISHED = "image.new"
#: attempts to copy at one instant when a write came in between: with shared extents, and with copied data
_ATTEMPTS_SHARED, _ATTEMPTS_COPIED = 16, 3


def create(directory: str, size: int, *, full: bool) -> None:
    """An image of `size` zeros; `full` takes their space now."""
    path = os.path.join(directory, _UNFINISHED)
    if not full:
        sizes.check_free_space(directory, size)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        _set_size(descriptor, 0, size, full=full)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    failpoint.hit("volume.create.filled")
    os.rename(path, os.path.join(directory, NAME))


def finish_copy(directory: str, size: int, *, full: bool) -> None:
    """Grow what `copy_at_one_instant` copied to `size`, make it durable, and give it its final name."""
    path = os.path.join(directory, _UNFINISHED)
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        before = os.fstat(descriptor).st_size
        if size > before or full:
            _set_size(descriptor, before, max(size, before), full=full)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    failpoint.hit("volume.create.filled")
    os.rename(path, os.path.join(directory, NAME))


def _set_size(descriptor: int, before: int, size: int, *, full: bool) -> None:
    os.ftruncate(descriptor, size)
    if full and size > 0:
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError as error:
            os.ftruncate(descriptor, before)
            if error.errno == errno.ENOSPC:
                raise ResourceExhausted(f"{size} bytes cannot be set aside: {error.strerror}") from error
            raise


def expand(image: str, size: int, *, full: bool) -> None:
    """Never makes it smaller; `full` takes the space of all of it."""
    descriptor = os.open(image, os.O_RDWR | os.O_CLOEXEC)
    try:
        before = os.fstat(descriptor).st_size
        if size > before and not full:
            sizes.check_free_space(os.path.dirname(image), size - before)
        if size > before or full:
            _set_size(descriptor, before, max(size, before), full=full)
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def clear_content(image: str) -> None:
    """Let it hold zeros, and the space that was set aside for it stay so."""
    descriptor = os.open(image, os.O_RDWR | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if any(True for _range in filesystems.data_ranges(descriptor, 0, status.st_size)):
            full = status.st_blocks * 512 >= status.st_size
            os.ftruncate(descriptor, 0)
            _set_size(descriptor, 0, status.st_size, full=full)
    finally:
        os.close(descriptor)


def ensure_attached(image: str, *, read_only: bool) -> int:
    """The loop device over it, attached now where there is none of that kind."""
    for number in loop_device.find(image):
        if loop_device.is_read_only(number) == read_only and not loop_device.is_being_detached(number):
            return number
    return attach(image, read_only=read_only)


def attach(image: str, *, read_only: bool) -> int:
    number = loop_device.attach(image, read_only=read_only)
    failpoint.hit("volume.attached")
    return number


def detach(numbers: Iterable[int], image: str) -> None:
    """Give them back, those that are still over `image`; who holds one keeps it for as long."""
    for number in numbers:
        loop_device.detach(number, image)
        failpoint.hit("volume.detached")


@dataclass(frozen=True, slots=True)
class Job:
    """One image to be copied, with others at the same instant."""

    source: str
    #: a directory
    target: str
    #: whether a file system in it can be frozen, else the devices have to be quiet meanwhile
    freezable: bool


def copy_at_one_instant(jobs: Sequence[Job], freeze: Callable[[Sequence[Job]], AbstractContextManager[float]]) -> None:
    """Copy all images as they are at one instant; `finish_copy` is left to do.

    Frozen file systems stand still. Of raw block devices the kernel counts the writes: copies during which
    one completed are discarded and made again.
    """
    devices = {job.source: loop_device.find(job.source) for job in jobs}
    for number in (number for numbers in devices.values() for number in numbers):
        loop_device.flush(number)
    frozen = [job for job in jobs if job.freezable and any(loop_device.is_claimed(number) for number in devices[job.source])]
    watched = [number for job in jobs if job not in frozen for number in devices[job.source]]
    with freeze(frozen) as deadline:
        for attempt in range(1, _ATTEMPTS_SHARED + 1):
            before = _writes(watched)
            shared = [_copy(job, deadline) for job in jobs]
            # a shared copy of a single image is of one instant by itself
            if _writes(watched) == before or (len(jobs) == 1 and shared[0]):
                return
            if time.monotonic() > deadline or (attempt == _ATTEMPTS_COPIED and not all(shared)):
                break
    raise Unavailable(
        "the block device is written to all the time, and what lies below cannot copy "
        "these volumes at one instant: stop the writer, or use a file system with reflinks for single snapshots"
    )


def _copy(job: Job, deadline: float) -> bool:
    """Whether the extents are shared."""
    source = os.open(job.source, os.O_RDONLY | os.O_CLOEXEC)
    target = -1
    try:
        target = os.open(os.path.join(job.target, _UNFINISHED), os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        if filesystems.reflink(source, target):
            return True
        filesystems.copy(source, target, deadline)
        return False
    finally:
        os.close(source)
        if target >= 0:
            os.close(target)


def _writes(numbers: Sequence[int]) -> Mapping[int, int]:
    return {number: loop_device.write_count(number) for number in numbers}
