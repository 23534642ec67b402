"""The network configuration of a directory, loaded again whenever the directory changes."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import threading
from collections.abc import Callable
from pathlib import Path

from runtime_core.cni import conf
from runtime_core.cni.conf import NetworkList
from runtime_core.errors import InvalidArgument

_ENTRIES = 0x40 | 0x80 | 0x100 | 0x200  # IN_MOVED_FROM MOVED_TO CREATE DELETE
_ITSELF = 0x400 | 0x800  # IN_DELETE_SELF MOVE_SELF
_CONTENTS = 0x8  # IN_CLOSE_WRITE: not MODIFY, which would show files that are half written
#: where inotify is refused (its instances are limited), and where a directory vanished under our eyes
_POLL_SECONDS = 5.0


class WatchedDirectory:
    """`network` is the first valid list, or None and `problem` says why. The directory may be missing, appear and go."""

    def __init__(self, directory: Path, on_change: Callable[[], None]) -> None:
        """`on_change` is called in a thread of its own whenever `network` or `problem` has changed."""
        self._directory, self._on_change = directory, on_change
        self._libc = ctypes.CDLL(None, use_errno=True)
        #: replaced as a whole: who reads it in another thread sees one state
        self._state = self._load()
        self._stop, self._stopper = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._watch, name="cni-config", daemon=True)
        self._thread.start()

    @property
    def network(self) -> NetworkList | None:
        """The first valid list as last read; None when there is none."""
        return self._state[0]

    @property
    def problem(self) -> str:
        """Why `network` is None; "" when it is not."""
        return self._state[1]

    def close(self) -> None:
        """Idempotent."""
        stopper, self._stopper = self._stopper, -1
        if stopper >= 0:
            os.close(stopper)
            self._thread.join()
            os.close(self._stop)

    def _load(self) -> tuple[NetworkList | None, str]:
        try:
            network = conf.load_first(self._directory)
        except InvalidArgument as error:
            return None, str(error)
        if network is not None:
            return network, ""
        what = "no network configuration in" if self._directory.is_dir() else "no directory"
        return None, f"{what} {self._directory}"

    def _watch(self) -> None:
        while True:
            notifier = self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
            is_watching = notifier >= 0 and self._add_watches(notifier)
            self._refresh()  # what happened before the watch stood
            waiting = [self._stop, notifier] if is_watching else [self._stop]
            ready, _, _ = select.select(waiting, [], [], None if is_watching else _POLL_SECONDS)
            if notifier >= 0:
                os.close(notifier)
            if self._stop in ready:
                return

    def _add_watches(self, notifier: int) -> bool:
        """Again until nothing has come or gone between the look and the watch."""
        watched: list[tuple[Path, int]] = []
        while (wanted := self._watched()) != watched:
            if any(self._libc.inotify_add_watch(notifier, os.fsencode(path), events) < 0 for path, events in wanted):
                return False
            watched = wanted
        return True

    def _watched(self) -> list[tuple[Path, int]]:
        """The directory and, for its coming and going, the nearest directory above it, with events (inotify(7))."""
        above = self._directory.absolute().parent
        while not above.is_dir():
            above = above.parent
        watches = [(above, _ENTRIES | _ITSELF)]
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            # Beside a list there may be a directory with more plugins of it.
            below = sorted(entry for entry in self._directory.iterdir() if entry.is_dir())
            watches += [(path, _ENTRIES | _ITSELF | _CONTENTS) for path in (self._directory, *below)]
        return watches

    def _refresh(self) -> None:
        state = self._load()
        if state != self._state:
            self._state = state
            self._on_change()
