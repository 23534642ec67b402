"""Calls that outlive their caller: a retry of the same work joins it and gets its result.

The kubelet gives up after its deadline and calls again. The work goes on, and the second
call waits for it instead of failing on a reserved name.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from runtime_core.errors import DeadlineExceeded
from runtime_core.serving.threads import Threads

Result = TypeVar("Result")
_THREADS = 64


class Operations:
    """Work under way, by key. A finished one is forgotten: its effect is in the records then."""

    def __init__(self) -> None:
        self._pool = Threads(_THREADS, "work")
        self._lock = threading.Lock()
        self._underway: dict[str, Future[Any]] = {}

    def run_once(self, key: str, function: Callable[[], Result], timeout: float | None) -> Result:
        """Run `function`, or wait for the run of the same key; DeadlineExceeded after `timeout`, while the work continues."""
        with self._lock:
            future = self._underway.get(key)
            if future is None:
                future = self._underway[key] = self._pool.submit(self._run, key, function)
        try:
            result: Result = future.result(timeout)
        except TimeoutError as error:
            if future.done():
                raise
            raise DeadlineExceeded(f"{key} is still under way; the same call again will get its result") from error
        return result

    def _run(self, key: str, function: Callable[[], Result]) -> Result:
        try:
            return function()
        finally:
            with self._lock:
                del self._underway[key]
