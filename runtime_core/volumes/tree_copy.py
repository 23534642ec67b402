"""Copies directory trees at one instant: repeated until nothing has changed meanwhile."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from runtime_core.errors import Unavailable
from runtime_core.kernel import failpoint, syscalls
from runtime_core.volumes import tree

_ATTEMPTS = 8
_RACES = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV, errno.ESTALE)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def copy_at_one_instant(pairs: Sequence[tuple[str, str]], prepare: Callable[[str], None] = lambda path: None) -> None:
    """Copy trees (directory, directory that does not exist yet), all as they are at one instant; `prepare` gets each
    new directory while it is empty.

    The file system that they share cannot be frozen while it is copied to; so the change times of everything are
    compared, and a copy during which something changed is thrown away.
    """
    with ExitStack() as stack:
        sources = []
        for source, _target in pairs:
            sources.append(os.open(source, _DIRECTORY))
            stack.callback(os.close, sources[-1])
        for _attempt in range(_ATTEMPTS):
            if _try(sources, [target for _source, target in pairs], prepare):
                failpoint.hit("volume.snapshot.frozen")
                syscalls.syncfs(sources[0])  # the copies are on disk before they get their name
                return
            for _source, target in pairs:
                tree.remove(target)
    raise Unavailable(
        "the volume is written to all the time, and a directory cannot be frozen: stop the writer, or use the loop back end"
    )


def _try(sources: Sequence[int], targets: Sequence[str], prepare: Callable[[str], None]) -> bool:
    try:
        syscalls.syncfs(sources[0])  # mapped pages are clean after it, so that writing to one is seen in ctime again
        before = [tree.fingerprint(source) for source in sources]
        for source, path in zip(sources, targets, strict=True):
            os.mkdir(path, 0o700)
            prepare(path)
            target = os.open(path, _DIRECTORY)
            try:
                tree.copy(source, target, float("inf"))
            finally:
                os.close(target)
        return before == [tree.fingerprint(source) for source in sources]
    except OSError as error:
        if error.errno not in _RACES:
            raise
        return False  # removed or replaced under the walk
