"""One JSON line per event on standard error, bound to what it is about."""

from __future__ import annotations

import json
import sys
import time
from typing import TextIO

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Log:
    """A logger with bound fields; cheap when its level is off."""

    def __init__(self, level: str = "info", *, stream: TextIO | None = None, **bound: object) -> None:
        self._level, self._stream, self._bound = level, stream or sys.stderr, bound
        self._threshold = LEVELS[level]

    def bind(self, **fields: object) -> Log:
        """A logger with these fields in every line too."""
        return Log(self._level, stream=self._stream, **{**self._bound, **fields})

    def is_on(self, level: str) -> bool:
        """Whether lines of this level are written."""
        return LEVELS[level] >= self._threshold

    def debug(self, event: str, **fields: object) -> None:
        """Write a line of level debug."""
        self._write("debug", event, fields)

    def info(self, event: str, **fields: object) -> None:
        """Write a line of level info."""
        self._write("info", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Write a line of level warning."""
        self._write("warning", event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Write a line of level error."""
        self._write("error", event, fields)

    def _write(self, level: str, event: str, fields: dict[str, object]) -> None:
        if LEVELS[level] < self._threshold:
            return
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
        record = {"time": stamp, "level": level, "event": event, **self._bound, **fields}
        try:
            self._stream.write(json.dumps(record, default=str) + "\n")
            self._stream.flush()
        except OSError:
            return  # the log's reader has gone, or its disk is full: there is nobody to tell, and the work goes on
