"""Locks of volumes and snapshots for the time of a call: exclusive, or shared by readers."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from runtime_core.errors import Aborted


class OperationLocks:
    """Locks by id, or by name while there is no id yet. Nobody waits: Aborted tells the caller to retry."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._held: set[str] = set()
        self._shared: Counter[str] = Counter()

    @contextmanager
    def hold(self, *names: str, shared: Collection[str] = ()) -> Iterator[None]:
        """Hold `names` exclusively and those in `shared` together with other readers; Aborted when it is not possible."""
        exclusive, read = set(names), set(shared)
        with self._guard:
            if taken := (exclusive | read) & self._held | {name for name in exclusive if self._shared[name]}:
                raise Aborted(f"another call on {', '.join(sorted(taken))} is under way")
            self._held |= exclusive
            self._shared.update(read)
        try:
            yield
        finally:
            with self._guard:
                self._held -= exclusive
                self._shared.subtract(read)
                self._shared += Counter()  # drops what nobody shares any more
