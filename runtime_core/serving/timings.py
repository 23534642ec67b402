"""How many calls came, by method and code, and how long they took."""

from __future__ import annotations

import bisect
import threading
from dataclasses import dataclass, field

#: upper ends in seconds; what takes longer is counted in the last one, which has none
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@dataclass(slots=True)
class Timing:
    """The calls of one method that ended with one code."""

    count: int = 0
    seconds: float = 0.0
    #: by BUCKETS, not cumulated
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))


class Timings:
    """Added to by every call, read by whoever shows them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._timings: dict[tuple[str, str], Timing] = {}

    def add(self, method: str, code: str, seconds: float) -> None:
        """Count one call of `method` that ended with the status `code` after `seconds`."""
        with self._lock:
            timing = self._timings.setdefault((method, code), Timing())
            timing.count += 1
            timing.seconds += seconds
            timing.buckets[bisect.bisect_left(BUCKETS, seconds)] += 1

    def read(self) -> dict[tuple[str, str], Timing]:
        """A copy, by method and code."""
        with self._lock:
            return {key: Timing(timing.count, timing.seconds, list(timing.buckets)) for key, timing in self._timings.items()}
