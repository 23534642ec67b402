"""Container output to lines of the CRI log format; no I/O.

    2016-10-06T00:17:09.669794202Z stdout P a line that goes on
    2016-10-06T00:17:10.113242941Z stdout F a line that is complete

Source: Kubernetes' design document "CRI: Logging". A line longer than 16 KiB is cut into
partial ones. What one read brought is stamped once and turned with one bytes.replace.
"""

from __future__ import annotations

import time

LONGEST = 16 * 1024
_STAMP = len("2016-10-06T00:17:09.794669702Z")


class LineWriter:
    """One stream's state: what of a line has come without its end, and whether what was written of it has one."""

    __slots__ = ("_full", "_is_open", "_is_torn", "_partial", "_rest", "_was_open", "stream")

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self._full, self._partial = f" {stream} F ".encode(), f" {stream} P ".encode()
        self._rest = b""
        #: the last piece given out was a partial one, and so was the one before the last call
        self._is_open = self._was_open = False
        #: a partial piece is the last one in the file, and what followed it is lost
        self._is_torn = False

    def feed(self, data: bytes, nanoseconds: int) -> bytes:
        """The complete lines, and the pieces of an overlong one, that `data` brings; b"" when none."""
        if self._rest:
            data = self._rest + data
            self._rest = b""
        end = data.rfind(b"\n")
        complete, rest = data[:end] if end >= 0 else None, data[end + 1 :]
        stamp = timestamp(nanoseconds)
        out, is_open = b"", False
        if complete is not None:
            out = self._lines(complete, stamp)
        while len(rest) >= LONGEST:
            out += stamp + self._partial + rest[:LONGEST] + b"\n"
            rest = rest[LONGEST:]
            is_open = True
        self._rest = rest
        return self._given(out, stamp, is_open=is_open)

    def finish(self, nanoseconds: int) -> bytes:
        """The last line, when it had no end."""
        rest, self._rest = self._rest, b""
        stamp = timestamp(nanoseconds)
        return self._given(stamp + self._full + rest + b"\n" if rest else b"", stamp, is_open=False)

    def lost(self, lines: bytes, written: int) -> int:
        """Of `lines`, the last that were given out, only the first `written` bytes are in the file, and nothing of the
        rest will be: how many of them to cut off again, so that it ends with a line. The next call of `feed` ends a
        line whose pieces are there and whose end is not."""
        whole = lines.rfind(b"\n", 0, written) + 1
        if whole:
            last = lines.rfind(b"\n", 0, whole - 1) + 1
            self._is_torn = lines.startswith(self._partial, last + _STAMP)
        else:
            self._is_torn = self._was_open
        self._is_open = False
        return written - whole

    def _given(self, out: bytes, stamp: bytes, *, is_open: bool) -> bytes:
        if not out:
            return out
        if self._is_torn:
            out = stamp + self._full + b"\n" + out
        self._was_open, self._is_open, self._is_torn = self._is_open or self._is_torn, is_open, False
        return out

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
