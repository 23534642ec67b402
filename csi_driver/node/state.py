"""What the node's half knows in memory alone: problems as last seen, devices, and what is being changed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from csi_driver.node.bounded import Bounded
from runtime_core.interfaces.volume import Problem

_SECONDS = 3.0


class NodeState:
    def __init__(self) -> None:
        #: what asks a file system
        self.bounded = Bounded(_SECONDS)
        #: volume id → device node of a staged block volume
        self.devices: dict[str, str] = {}
        self._guard = threading.Lock()
        self._problems: dict[str, tuple[Problem, ...]] = {}
        self._changing: set[str] = set()
        self._missed: set[str] = set()
        self._look_again: Callable[[str], None] = lambda _volume_id: None

    def problems(self, volume_id: str) -> tuple[Problem, ...]:
        """As last seen."""
        return self._problems.get(volume_id, ())

    def all_problems(self) -> dict[str, tuple[Problem, ...]]:
        """Of every volume that has some, for metrics and lists."""
        with self._guard:
            return {volume_id: found for volume_id, found in self._problems.items() if found}

    def saw(self, volume_id: str, problems: Sequence[Problem]) -> bool:
        """Remember them; whether they are others than before."""
        with self._guard:
            before = self._problems.get(volume_id, ())
            self._problems[volume_id] = tuple(problems)
            return before != tuple(problems)

    def forget(self, volume_id: str) -> None:
        with self._guard:
            self._problems.pop(volume_id, None)
            self.devices.pop(volume_id, None)

    @contextmanager
    def changing(self, volume_id: str) -> Iterator[None]:
        """What is seen of a volume within the block says nothing: it is being mounted or taken away."""
        with self._guard:
            self._changing.add(volume_id)
        try:
            yield
        finally:
            with self._guard:
                self._changing.discard(volume_id)
                missed = volume_id in self._missed
                self._missed.discard(volume_id)
            if missed:
                self._look_again(volume_id)

    def is_changing(self, volume_id: str) -> bool:
        """True also promises that `look_again` is called when the change is over."""
        with self._guard:
            if volume_id not in self._changing:
                return False
            self._missed.add(volume_id)
            return True

    def when_changed(self, look_again: Callable[[str], None]) -> None:
        self._look_again = look_again
