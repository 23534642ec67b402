"""In-memory state of the node service: problems as last seen, devices, and volumes that are being changed."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from csi_driver.timed_call import TimedCalls
from runtime_core.interfaces.volume import Problem

_SECONDS = 3.0
#: seconds after which a change is taken for one that hangs
LONGEST_CHANGE = 10.0


class NodeState:
    """Shared by the node's calls and the watch; lost at a restart."""

    def __init__(self) -> None:
        #: what asks a file system
        self.bounded = TimedCalls(_SECONDS)
        #: volume id → device node of a staged block volume
        self.devices: dict[str, str] = {}
        self._guard = threading.Lock()
        self._problems: dict[str, tuple[Problem, ...]] = {}
        #: volume id → since when, on the monotonic clock
        self._changing: dict[str, float] = {}
        self._numbers = itertools.count(1)
        self._changes: dict[str, int] = {}
        self._suspects: set[str] = set()
        self._changed: Callable[[str, bool], None] = lambda _volume_id, _is_suspect: None

    def problems(self, volume_id: str) -> tuple[Problem, ...]:
        """As last seen."""
        return self._problems.get(volume_id, ())

    def all_problems(self) -> dict[str, tuple[Problem, ...]]:
        """Of every volume that has some, for metrics and lists."""
        with self._guard:
            return {volume_id: found for volume_id, found in self._problems.items() if found}

    def update_problems(self, volume_id: str, problems: Sequence[Problem]) -> bool:
        """Remember the problems; whether they have changed."""
        with self._guard:
            before = self._problems.get(volume_id, ())
            self._problems[volume_id] = tuple(problems)
            return before != tuple(problems)

    def forget(self, volume_id: str) -> None:
        """Drop all that is known of a deleted volume."""
        with self._guard:
            self._problems.pop(volume_id, None)
            self._changes.pop(volume_id, None)
            self.devices.pop(volume_id, None)

    @contextmanager
    def changing(self, volume_id: str) -> Iterator[None]:
        """What is seen of a volume within the block says nothing: it is being mounted or taken away."""
        with self._guard:
            self._changing[volume_id] = time.monotonic()
            self._changes[volume_id] = next(self._numbers)
        try:
            yield
        finally:
            with self._guard:
                self._changing.pop(volume_id, None)
                is_suspect = volume_id in self._suspects
                self._suspects.discard(volume_id)
            self._changed(volume_id, is_suspect)

    def changes(self, volume_id: str) -> int:
        """A number that is another one after the next change; -1 within a change, which ends with the volume as a suspect."""
        with self._guard:
            if volume_id not in self._changing:
                return self._changes.get(volume_id, 0)
            self._suspects.add(volume_id)
            return -1

    def is_quiet(self) -> bool:
        """Whether nothing is being changed, else the end of the change is told; one that hangs does not count."""
        with self._guard:
            return all(time.monotonic() - since > LONGEST_CHANGE for since in self._changing.values())

    def on_change(self, changed: Callable[[str, bool], None]) -> None:
        """`changed` gets the volume, and whether somebody wanted to look at it meanwhile."""
        self._changed = changed
