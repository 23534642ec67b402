"""Calls that may hang in the kernel, run in a thread of their own, with a time-out for the caller."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from runtime_core.errors import DeadlineExceeded

Result = TypeVar("Result")


class TimedCalls:
    """One thread per name at most: a file system that hangs takes one thread, however often it is asked for."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._guard = threading.Lock()
        self._jobs: dict[str, _Job] = {}

    def run(self, name: str, function: Callable[[], Result]) -> Result:
        """The result of `function`; DeadlineExceeded when it takes too long. Concurrent callers get the same result."""
        with self._guard:
            job = self._jobs.get(name)
            if job is None:
                job = self._jobs[name] = _Job(function, lambda: self._ended(name))
                threading.Thread(target=job.run, name=f"node-{name[:8]}", daemon=True).start()
        if not job.ended.wait(self._seconds):
            raise DeadlineExceeded(f"{name}: the file system has not answered for {self._seconds:g} s")
        if job.error is not None:
            raise job.error
        result: Result = job.result
        return result

    def hanging(self) -> list[str]:
        with self._guard:
            return list(self._jobs)

    def _ended(self, name: str) -> None:
        with self._guard:
            del self._jobs[name]


class _Job:
    def __init__(self, function: Callable[[], Any], when_ended: Callable[[], None]) -> None:
        self._work, self._when_ended = function, when_ended
        self.ended = threading.Event()
        self.result: Any = None
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self.result = self._work()
        except Exception as error:  # noqa: BLE001  the edge of the thread: who asked gets it
            self.error = error
        finally:
            self._when_ended()
            self.ended.set()
