"""Bytes between descriptors and channels: a source reads, a sink writes, neither ever waits."""

from __future__ import annotations

import os
from collections.abc import Callable

from runtime_core.streaming.connection import ClientConnection
from runtime_core.streaming.loop import Loop

_READ_BYTES = 128 * 1024
#: from here on the client is kept waiting
_MOST_PENDING = 256 * 1024


class Source:
    """What comes out of `descriptor` is given to `on_data`; at its end `on_end` is called, once."""

    def __init__(self, loop: Loop, descriptor: int, on_data: Callable[[bytes], None], on_end: Callable[[], None]) -> None:
        self.descriptor, self.is_open = descriptor, True
        self._loop, self._on_data, self._on_end = loop, on_data, on_end
        os.set_blocking(descriptor, False)
        self.resume()

    def pause(self) -> None:
        """Read no more for now."""
        if self.is_open:
            self._loop.on_readable(self.descriptor, None)

    def resume(self) -> None:
        """Read on."""
        if self.is_open:
            self._loop.on_readable(self.descriptor, self._readable)

    def _readable(self) -> None:
        self.read()

    def read(self) -> bool:
        """Hand on what is there now; False when there was nothing."""
        try:
            data = os.read(self.descriptor, _READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:  # EIO: nobody has the terminal any more; ECONNRESET of a socket
            data = b""
        if data:
            self._on_data(data)
        else:
            self.end()
        return bool(data)

    def end(self) -> None:
        """Read no more, and say so."""
        if self.is_open:
            self.is_open = False
            self._loop.on_readable(self.descriptor, None)
            self._on_end()


class Sink:
    """Writes to `descriptor`; `on_finished` is called once all is written after `finish`, or when nobody reads it."""

    def __init__(self, loop: Loop, descriptor: int, client: ClientConnection, on_finished: Callable[[], None]) -> None:
        self.descriptor = descriptor
        self._loop, self._client, self._on_finished = loop, client, on_finished
        self._pending = bytearray()
        self._is_finishing = self._is_finished = False
        os.set_blocking(descriptor, False)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Now, or as soon as there is room; the client is kept waiting while much is pending."""
        if self._is_finishing or self._is_finished:
            return
        if not self._pending:
            data = data[self._write(data) :]
        if data and not self._is_finished:
            self._pending += data
            self._loop.on_writable(self.descriptor, self._flush)
            if len(self._pending) >= _MOST_PENDING:
                self._client.pause_reading(self)

    def finish(self) -> None:
        """Nothing more comes."""
        self._is_finishing = True
        if not self._pending:
            self._finished()

    def _flush(self) -> None:
        del self._pending[: self._write(self._pending)]
        if self._pending or self._is_finished:
            return
        self._loop.on_writable(self.descriptor, None)
        self._client.resume_reading(self)
        if self._is_finishing:
            self._finished()

    def _write(self, data: bytes | bytearray | memoryview) -> int:
        try:
            return os.write(self.descriptor, data)
        except BlockingIOError:
            return 0
        except OSError:  # EPIPE: nobody reads it any more
            self._finished()
            return len(data)

    def _finished(self) -> None:
        if not self._is_finished:
            self._is_finished = True
            self._pending.clear()
            self._loop.on_writable(self.descriptor, None)
            self._client.resume_reading(self)
            self._on_finished()
