"""Volumes as btrfs subvolumes: made with their limit, cloned, snapshotted in one transaction, destroyed."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from runtime_core.errors import NotFound, Unavailable
from runtime_core.interfaces.volume import Usage
from runtime_core.kernel import btrfs, failpoint

NAME = "data"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: how often snapshots of volumes in use may miss a common transaction
_ATTEMPTS = 100


@contextmanager
def _opened(path: str) -> Iterator[int]:
    descriptor = os.open(path, _DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def create(directory: str, size: int) -> None:
    """A new subvolume in `directory`, limited to `size` bytes."""
    with _opened(directory) as parent:
        btrfs.create(parent, NAME)
    failpoint.hit("volume.create.filled")
    set_limit(directory, size)


def clone(source: str, directory: str, size: int) -> None:
    """A writable snapshot of the subvolume in `source`, limited to `size` bytes."""
    with _opened(os.path.join(source, NAME)) as original, _opened(directory) as parent:
        btrfs.snapshot(original, parent, NAME, read_only=False)
    failpoint.hit("volume.create.filled")
    set_limit(directory, size)


def set_limit(directory: str, size: int) -> None:
    """Let the subvolume in `directory` have at most `size` bytes."""
    with _opened(os.path.join(directory, NAME)) as subvolume:
        btrfs.limit(subvolume, size)


def is_limited(directory: str) -> bool:
    """What `create` and `clone` do last was done."""
    try:
        with _opened(os.path.join(directory, NAME)) as subvolume:
            return btrfs.quota(subvolume)[1] > 0
    except FileNotFoundError:
        return False


def snapshot_at_one_instant(pairs: Sequence[tuple[str, str]]) -> None:
    """Read-only snapshots (directory of the volume, directory of the snapshot) of one instant.

    That is one transaction of the file system: what was synced before it is in all of them. They are asked for at once,
    each in a directory of its own, as the kernel would queue them otherwise; what missed it is made again.
    """
    with ExitStack() as stack:
        opened = [
            (stack.enter_context(_opened(os.path.join(source, NAME))), stack.enter_context(_opened(target)))
            for source, target in pairs
        ]
        for _attempt in range(_ATTEMPTS):
            _snapshot_all(opened)
            if _is_one_instant([target for _source, target in pairs]):
                failpoint.hit("volume.snapshot.frozen")
                return
            for _source, target in pairs:
                destroy(target)
    raise Unavailable("the volumes are written to all the time: their snapshots did not meet in one transaction; try again")


def _snapshot_all(opened: Sequence[tuple[int, int]]) -> None:
    start = threading.Barrier(len(opened))
    failures: list[OSError] = []

    def take(source: int, parent: int) -> None:
        start.wait()
        try:
            btrfs.snapshot(source, parent, NAME, read_only=True)
        except OSError as error:
            failures.append(error)

    others = [threading.Thread(target=take, args=pair) for pair in opened[1:]]
    for other in others:
        other.start()
    take(*opened[0])
    for other in others:
        other.join()
    if failures:
        raise failures[0]


def _is_one_instant(directories: Sequence[str]) -> bool:
    """All in the first transaction, or not changed since it."""
    found = []
    for directory in directories:
        with _opened(os.path.join(directory, NAME)) as subvolume:
            found.append(btrfs.transactions(subvolume))
    first = min(made for made, _changed in found)
    return all(made == first or changed <= first for made, changed in found)


def destroy(directory: str) -> None:
    """With what was made in it; FileNotFoundError when there is none."""
    with _opened(directory) as parent, _opened(os.path.join(directory, NAME)) as subvolume:
        btrfs.destroy(parent, subvolume)


def usage(directory: str, size: int) -> Usage:
    """As of the last transaction, as the quota group tells: statfs(2) would tell of the whole file system."""
    try:
        with _opened(os.path.join(directory, NAME)) as subvolume:
            used, limit = btrfs.quota(subvolume)
    except FileNotFoundError:
        raise NotFound(f"the subvolume in {directory} is gone") from None
    status = os.statvfs(directory)
    total = limit or size
    return Usage(total, max(0, min(total - used, status.f_bavail * status.f_frsize)), used, (0, 0, 0))
