"""Records that survive a power cut, not only kill -9."""

from __future__ import annotations

import os
import threading
from pathlib import Path


class Flusher:
    """Makes what is committed to the store in `directory` durable; the store itself does so at checkpoints only.

    Whoever gives out something that holds data waits for it (`flush`); for an empty volume, and for one that is
    gone, it is enough to come soon after (`flush_soon`): the disk takes milliseconds, the rest of such a call one.
    """

    def __init__(self, directory: Path) -> None:
        self._log = directory / "state.db-wal"
        self._wanted = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="flush", daemon=True)
        self._thread.start()

    def flush(self) -> None:
        """Wait until all that is committed is on the disk (fdatasync)."""
        descriptor = os.open(self._log, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    def flush_soon(self) -> None:
        """Let the thread flush as soon as it can; returns at once."""
        self._wanted.set()

    def close(self) -> None:
        """Before the store is closed, which is a checkpoint."""
        self._ended = True
        self._wanted.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()  # before the look at _ended, or a close in between would be missed
            if self._ended:
                return
            self.flush()
