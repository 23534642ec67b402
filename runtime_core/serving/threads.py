"""A pool of threads that is as large as its work: what a crowd of calls has needed goes when the crowd has gone."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import Empty, SimpleQueue
from typing import Any

from runtime_core.kernel import memory

#: A thread without work for as long as this ends.
_IDLE_SECONDS = 10.0
#: After so many threads at once there is memory worth giving back.
_CROWD = 16


class Work:
    """One call, and the future of its result."""

    __slots__ = ("_call", "future")

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call, self.future = call, Future[Any]()

    def run(self) -> None:
        """Do it, unless it was cancelled; what it raises is raised where the result is asked for."""
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            result = self._call()
        except BaseException as error:  # noqa: BLE001  it is raised where the result is asked for
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


class Threads(Executor):
    """Like ThreadPoolExecutor, which keeps every thread that it once had. The thread that was busy last is taken
    first, so that the others can end; none of them keeps a program from ending."""

    def __init__(
        self,
        most: int,
        name: str,
        *,
        idle_seconds: float = _IDLE_SECONDS,
        on_calm: Callable[[], None] = memory.release_unused_memory,
    ) -> None:
        """`on_calm` is called when most threads of a crowd have ended."""
        self._most, self._name, self._idle_seconds, self._on_calm = most, name, idle_seconds, on_calm
        self._lock = threading.Lock()
        self._waiting: deque[Work] = deque()
        #: of each idle thread the place where it waits for work
        self._idle: list[SimpleQueue[Work]] = []
        self._count = self._peak = 0

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        """See concurrent.futures.Executor."""
        work = Work(lambda: function(*arguments, **named))
        with self._lock:
            if self._idle:
                self._idle.pop().put(work)
            elif self._count < self._most:
                self._start(work)
            else:
                self._waiting.append(work)
        return work.future

    def _start(self, work: Work) -> None:
        self._count += 1
        self._peak = max(self._peak, self._count)
        try:
            threading.Thread(target=self._run, args=([work],), name=self._name, daemon=True).start()
        except RuntimeError:  # the machine has no thread more: one of those that there are will do it
            self._count -= 1
            if not self._count:
                raise
            self._waiting.append(work)

    def _run(self, first: list[Work]) -> None:
        """`first` has one entry, which is taken out: nothing that is done is held while the thread waits."""
        place: SimpleQueue[Work] = SimpleQueue()
        first.pop().run()
        while self._run_next(place):
            pass

    def _run_next(self, place: SimpleQueue[Work]) -> bool:
        """Wait for work and do it; False when none has come."""
        with self._lock:
            work = self._waiting.popleft() if self._waiting else None
            if work is None:
                self._idle.append(place)
        if work is None:
            try:
                work = place.get(timeout=self._idle_seconds)
            except Empty:
                if self._leave(place):
                    return False
                work = place.get()
        work.run()
        return True

    def _leave(self, place: SimpleQueue[Work]) -> bool:
        """Whether the thread may end; not when it was given work in this moment."""
        with self._lock:
            if place not in self._idle:
                return False
            self._idle.remove(place)
            self._count -= 1
            is_calm = self._peak >= _CROWD and self._count <= self._peak // 8
            if is_calm:
                self._peak = self._count
        if is_calm:
            self._on_calm()
        return True
