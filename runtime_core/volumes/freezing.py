"""Freezes file systems together while they are copied, and never for longer.

One thread for each: a file system that hangs keeps its own thread, while the others are thawed
in time. A file says who is frozen, so that the next driver thaws what this one died over.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from runtime_core.errors import DeadlineExceeded, Unavailable
from runtime_core.kernel import failpoint, filesystems


@contextmanager
def frozen(roots: Mapping[str, tuple[str, Callable[[], int | None]]], marks: str, seconds: float) -> Iterator[float]:
    """Within the block the file systems of these volumes are frozen; yields the deadline (monotonic clock).

    For each volume what its mark says, and what opens a directory of its file system (None: it is read-only).
    """
    deadline = time.monotonic() + seconds
    workers = [_Freeze(os.path.join(marks, name), text, opener) for name, (text, opener) in roots.items()]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.wait_frozen(deadline)
        failpoint.hit("volume.snapshot.frozen")
        yield deadline
    finally:
        for worker in workers:
            worker.release.set()
        for worker in workers:
            worker.join(max(0.0, deadline + seconds - time.monotonic()))


class _Freeze(threading.Thread):
    def __init__(self, mark: str, text: str, opener: Callable[[], int | None]) -> None:
        super().__init__(name="freeze", daemon=True)
        self._mark, self._text, self._opener = mark, text, opener
        self._ready, self.release = threading.Event(), threading.Event()
        self._error: Exception | None = None

    def run(self) -> None:
        try:
            self._freeze_until_released()
        except Exception as error:  # noqa: BLE001  the edge of the thread: who waits for it gets it
            self._error = error
        finally:
            self._ready.set()

    def _freeze_until_released(self) -> None:
        root = self._opener()
        if root is None:
            return
        try:
            with open(self._mark, "x") as file:
                file.write(self._text)
            filesystems.freeze(root)
            try:
                self._ready.set()
                self.release.wait()
            finally:
                filesystems.unfreeze(root)
        finally:
            os.close(root)
            _unlink(self._mark)

    def wait_frozen(self, deadline: float) -> None:
        if not self._ready.wait(max(0.0, deadline - time.monotonic())):
            raise DeadlineExceeded(f"the file system of {os.path.basename(self._mark)} could not be frozen in time")
        if isinstance(self._error, OSError) and self._error.errno in (errno.EBUSY, errno.EEXIST):
            raise Unavailable(f"the file system of {os.path.basename(self._mark)} is frozen by somebody else")
        if self._error is not None:
            raise self._error


def unfreeze_leftover(marks: str, opener: Callable[[str, str], int | None], seconds: float) -> list[str]:
    """Unfreeze what a killed driver left frozen; the ids of those volumes. `opener` takes the id and what its mark says."""
    thawed: list[str] = []
    workers = [threading.Thread(target=_unfreeze, args=(marks, name, opener, thawed), daemon=True) for name in os.listdir(marks)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(seconds)
    return thawed


def _unfreeze(marks: str, name: str, opener: Callable[[str, str], int | None], thawed: list[str]) -> None:
    mark = os.path.join(marks, name)
    with open(mark) as file:
        root = opener(name, file.read())
    if root is not None:
        try:
            if filesystems.unfreeze(root):
                thawed.append(name)
        finally:
            os.close(root)
    _unlink(mark)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
