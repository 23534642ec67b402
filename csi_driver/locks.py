"""Which call works on what: one that changes it, or several that only read it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from runtime_core.errors import Aborted


class Holds:
    """By id, or by name while there is no id yet. Nobody waits: Aborted tells the caller to come again."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._held: set[str] = set()
        self._shared: Counter[str] = Counter()

    @contextmanager
    def hold(self, *names: str, sharing: Collection[str] = ()) -> Iterator[None]:
        """`names` are this call's alone; those of `sharing` it reads, beside others that do."""
        alone, read = set(names), set(sharing)
        with self._guard:
            if taken := (alone | read) & self._held | {name for name in alone if self._shared[name]}:
                raise Aborted(f"another call on {', '.join(sorted(taken))} is under way")
            self._held |= alone
            self._shared.update(read)
        try:
            yield
        finally:
            with self._guard:
                self._held -= alone
                self._shared.subtract(read)
                self._shared += Counter()  # drops what nobody shares any more
