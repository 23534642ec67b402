"""One thread that waits for descriptors and deadlines."""

from __future__ import annotations

import heapq
import itertools
import select
import time
from collections.abc import Callable

_READ = select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR | select.EPOLLRDHUP


class Loop:
    """Callbacks by descriptor, one for reading and one for writing, and by time."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._readers: dict[int, Callable[[], None]] = {}
        self._writers: dict[int, Callable[[], None]] = {}
        self._deadlines: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def on_readable(self, descriptor: int, callback: Callable[[], None] | None) -> None:
        """Call `callback` whenever there is something to read, or an end; None to stop that."""
        self._set(self._readers, descriptor, callback)

    def on_writable(self, descriptor: int, callback: Callable[[], None] | None) -> None:
        """Call `callback` whenever there is room to write; None to stop that."""
        self._set(self._writers, descriptor, callback)

    def forget(self, descriptor: int) -> None:
        """Before it is closed."""
        self.on_readable(descriptor, None)
        self.on_writable(descriptor, None)

    def call_after(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call it once; whoever does not want it any more looks at that in the callback."""
        heapq.heappush(self._deadlines, (time.monotonic() + seconds, next(self._numbers), callback))

    def step(self) -> None:
        """Wait for one round of callbacks and make them."""
        timeout = max(0.0, self._deadlines[0][0] - time.monotonic()) if self._deadlines else -1
        for descriptor, mask in self._epoll.poll(timeout):
            # One callback may take away the other's descriptor: each is looked up when its turn comes.
            if mask & ~select.EPOLLOUT and (reader := self._readers.get(descriptor)) is not None:
                reader()
            if mask & ~select.EPOLLIN and (writer := self._writers.get(descriptor)) is not None:
                writer()
        while self._deadlines and self._deadlines[0][0] <= time.monotonic():
            heapq.heappop(self._deadlines)[2]()

    def _set(self, callbacks: dict[int, Callable[[], None]], descriptor: int, callback: Callable[[], None] | None) -> None:
        before = self._mask(descriptor)
        if callback is None:
            callbacks.pop(descriptor, None)
        else:
            callbacks[descriptor] = callback
        after = self._mask(descriptor)
        if before == after:
            return
        if not before:
            self._epoll.register(descriptor, after)
        elif after:
            self._epoll.modify(descriptor, after)
        else:
            self._epoll.unregister(descriptor)

    def _mask(self, descriptor: int) -> int:
        return (_READ if descriptor in self._readers else 0) | (select.EPOLLOUT if descriptor in self._writers else 0)
