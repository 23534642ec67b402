"""Container output to lines of the CRI log format; no I/O.

    2016-10-06T00:17:09.669794202Z stdout P a line that goes on
    2016-10-06T00:17:10.113242941Z stdout F a line that is complete

Source: Kubernetes' design document "CRI: Logging". A line longer than 16 KiB is cut into
partial ones. What one read brought is stamped once and turned with one bytes.replace.
"""

from __future__ import annotations

import time

LONGEST = 16 * 1024


class LineWriter:
    """One stream's state: what of a line has come without its end."""

    __slots__ = ("_full", "_partial", "_rest", "stream")

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self._full, self._partial = f" {stream} F ".encode(), f" {stream} P ".encode()
        self._rest = b""

    def feed(self, data: bytes, nanoseconds: int) -> bytes:
        """The complete lines, and the pieces of an overlong one, that `data` brings; b"" when none."""
        if self._rest:
            data = self._rest + data
            self._rest = b""
        end = data.rfind(b"\n")
        complete, rest = data[:end] if end >= 0 else None, data[end + 1 :]
        stamp = timestamp(nanoseconds)
        out = b""
        if complete is not None:
            out = self._lines(complete, stamp)
        while len(rest) >= LONGEST:
            out += stamp + self._partial + rest[:LONGEST] + b"\n"
            rest = rest[LONGEST:]
        self._rest = rest
        return out

    def finish(self, nanoseconds: int) -> bytes:
        """The last line, when it had no end."""
        rest, self._rest = self._rest, b""
        return timestamp(nanoseconds) + self._full + rest + b"\n" if rest else b""

    def _lines(self, complete: bytes, stamp: bytes) -> bytes:
        prefix = stamp + self._full
        if len(complete) <= LONGEST:
            return prefix + complete.replace(b"\n", b"\n" + prefix) + b"\n"
        return b"".join(self._line(line, prefix, stamp) for line in complete.split(b"\n"))

    def _line(self, line: bytes, prefix: bytes, stamp: bytes) -> bytes:
        out = b""
        while len(line) > LONGEST:
            out += stamp + self._partial + line[:LONGEST] + b"\n"
            line = line[LONGEST:]
        return out + prefix + line + b"\n"


def timestamp(nanoseconds: int) -> bytes:
    """RFC 3339 with nine digits, UTC."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode() + b".%09dZ" % fraction
