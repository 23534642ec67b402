"""The block view of image snapshots: what holds data, and what differs between two of them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator

from runtime_core.interfaces.volume import Extent
from runtime_core.kernel import filesystems

#: offsets and lengths are multiples of it
BLOCK = 4096
_CHUNK = 1 << 20
_ZEROS = bytes(BLOCK)


def allocated(image: str, start: int) -> Iterator[Extent]:
    """What holds data, from byte `start` on."""
    descriptor = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
    try:
        end = os.fstat(descriptor).st_size
        yield from _merged(filesystems.data_ranges(descriptor, start, end), start, end)
    finally:
        os.close(descriptor)


def changed(base: str, target: str, start: int) -> Iterator[Extent]:
    """Where `target` holds other bytes than `base`, which reads as zeros past its end.

    Extents that both share are the same; of all others the bytes are compared.
    """
    old = os.open(base, os.O_RDONLY | os.O_CLOEXEC)
    new = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
    try:
        end = os.fstat(new).st_size
        first = start // BLOCK * BLOCK
        pieces = _not_shared(_places(old, first, end), _places(new, first, end))
        yield from _merged(_different(old, new, _whole_blocks(pieces, end)), start, end)
    finally:
        os.close(old)
        os.close(new)


def _places(descriptor: int, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    try:
        yield from filesystems.extents(descriptor, start, end)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOTTY):
            raise
        for first, last in filesystems.data_ranges(descriptor, start, end):
            yield first, last, -1


def _not_shared(old: Iterator[tuple[int, int, int]], new: Iterator[tuple[int, int, int]]) -> Iterator[tuple[int, int]]:
    """The ranges that either has, without those that lie at one place of the disk."""
    a, b = next(old, None), next(new, None)
    while a or b:
        if a is None or (b is not None and b[0] < a[0]):
            a, b, old, new = b, a, new, old
        assert a is not None
        if b is None or a[1] <= b[0]:
            yield a[0], a[1]
            a = next(old, None)
        elif a[0] < b[0]:
            yield a[0], b[0]
            a = _from(a, b[0])
        else:
            end = min(a[1], b[1])
            if a[2] != b[2] or a[2] < 0:
                yield a[0], end
            a = _from(a, end) or next(old, None)
            b = _from(b, end) or next(new, None)


def _from(extent: tuple[int, int, int], start: int) -> tuple[int, int, int] | None:
    first, last, place = extent
    if start >= last:
        return None
    return start, last, place if place < 0 else place + start - first


def _whole_blocks(ranges: Iterable[tuple[int, int]], end: int) -> Iterator[tuple[int, int]]:
    """Widened to blocks, in order, each block once."""
    reached = 0
    for first, last in ranges:
        first, last = max(first // BLOCK * BLOCK, reached), min(-(-last // BLOCK) * BLOCK, end)
        if first < last:
            yield first, last
            reached = last


def _different(old: int, new: int, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The blocks of which the bytes differ."""
    for first, last in ranges:
        for position in range(first, last, _CHUNK):
            length = min(_CHUNK, last - position)
            ours, theirs = os.pread(new, length, position), os.pread(old, length, position)
            if ours == theirs:
                continue
            for offset in range(0, len(ours), BLOCK):
                if ours[offset : offset + BLOCK] != (theirs[offset : offset + BLOCK] or _ZEROS)[: len(ours) - offset]:
                    yield position + offset, min(position + offset + BLOCK, last)


def _merged(ranges: Iterable[tuple[int, int]], start: int, end: int) -> Iterator[Extent]:
    """Whole blocks, what touches joined, nothing before `start`."""
    begin = finish = -1
    for first, last in _whole_blocks(ranges, end):
        if first > finish >= 0:
            yield _extent(begin, finish, start)
            begin = first
        elif begin < 0:
            begin = first
        finish = last
    if finish >= 0:
        yield _extent(begin, finish, start)


def _extent(begin: int, finish: int, start: int) -> Extent:
    begin = max(begin, start)
    return Extent(begin, finish - begin)
