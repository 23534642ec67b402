"""The cached answer of STATUS, so that no caller waits for a plugin."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from runtime_core.interfaces.network import NetworkStatus

#: An answer as old as this is asked for again, in the background, when somebody looks at it.
_FRESH_SECONDS = 5.0
_UNKNOWN = NetworkStatus(
    is_ready=False, reason="NetworkPluginNotReady", message="the network's plugins have not answered STATUS yet"
)


class Readiness:
    """Asks in a thread of its own, one question at a time, and only when somebody reads the answer."""

    def __init__(self, ask: Callable[[], NetworkStatus], fresh_seconds: float = _FRESH_SECONDS) -> None:
        self._ask, self._fresh_seconds = ask, fresh_seconds
        self._changed = threading.Condition()
        self._answer = _UNKNOWN
        self._answered_at = 0.0
        self._generation = 0
        self._is_wanted = self._is_closed = False
        threading.Thread(target=self._run, name="cni-status", daemon=True).start()

    def latest(self) -> NetworkStatus:
        """The last answer. When it is old, a new one is requested for the next call."""
        with self._changed:
            if time.monotonic() - self._answered_at >= self._fresh_seconds:
                self._request_answer()
            return self._answer

    def refresh(self) -> None:
        """Request a new answer; until it comes, the old one is returned."""
        with self._changed:
            self._generation += 1
            self._request_answer()

    def clear(self) -> None:
        """Drop the answer: there is no network to ask about."""
        with self._changed:
            self._generation += 1
            self._answer, self._is_wanted = _UNKNOWN, False

    def wait_first(self, seconds: float) -> None:
        """Until there is an answer, but not longer than that."""
        with self._changed:
            self._changed.wait_for(lambda: self._answered_at > 0, seconds)

    def close(self) -> None:
        """End the thread; a question that is being asked is not waited for."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _request_answer(self) -> None:
        self._is_wanted = True
        self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_wanted or self._is_closed)
                if self._is_closed:
                    return
                generation, self._is_wanted = self._generation, False
            answer = self._ask()
            with self._changed:
                if generation == self._generation:  # else it is about what has changed since
                    self._answer = answer
                self._answered_at = time.monotonic()
                self._changed.notify_all()
