"""The client's connection: bytes in and out without ever waiting, and a word to those who produce too quickly."""

from __future__ import annotations

import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable

from runtime_core.streaming.loop import Loop

_READ_BYTES = 256 * 1024
_MOST_PIECES = 64  # of one system call
_LINGER_SECONDS = 10.0
#: bytes; while more are unsent the client is not read: what it asks (pings) would be answered without end
_MOST_UNSENT = 4 * 1024 * 1024
#: an idle peer that has vanished is noticed within about two minutes; a living one that does not read is waited for
_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 6),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
)
_NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class ClientConnection:
    """`on_data` is called with what comes, with b"" at the end; `on_room` with whether more may be sent now."""

    def __init__(self, loop: Loop, sock: socket.socket) -> None:
        self.on_data: Callable[[bytes], None] = lambda _data: None
        self.on_room: Callable[[bool], None] = lambda _has_room: None
        self.last_used = time.monotonic()
        self.is_over = False
        self._loop, self._socket = loop, sock
        self._unsent: deque[memoryview] = deque()
        self.unsent_bytes = 0
        self._waiting_for: set[object] = set()
        self._is_finishing = self._is_shut_down = False
        for level, option, value in _KEEPALIVE:
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(level, option, value)
        sock.setblocking(False)
        loop.on_readable(sock.fileno(), self._read)

    def send(self, pieces: Iterable[bytes]) -> None:
        """Send them now, or as soon as the client takes them."""
        if self.is_over:
            return
        was_empty = not self._unsent
        for piece in pieces:
            if piece:
                self._unsent.append(memoryview(piece))
                self.unsent_bytes += len(piece)
        if was_empty and self._unsent:
            self._flush()
            if self._unsent:
                self._loop.on_writable(self._socket.fileno(), self._write)
                self.on_room(False)
        if self.unsent_bytes > _MOST_UNSENT and not self._is_finishing:
            self.pause_reading(self)

    def pause_reading(self, sink: object) -> None:
        """Do not read on before `sink` has taken what it was given."""
        if not self._waiting_for and not self.is_over:
            self._loop.on_readable(self._socket.fileno(), None)
        self._waiting_for.add(sink)

    def resume_reading(self, sink: object) -> None:
        """`sink` has room again, or is gone."""
        if sink in self._waiting_for:
            self._waiting_for.discard(sink)
            if not self._waiting_for and not self.is_over:
                self._loop.on_readable(self._socket.fileno(), self._read)
                if isinstance(self._socket, ssl.SSLSocket):
                    self._loop.call_after(0, self._read)  # of what TLS has decrypted already epoll knows nothing

    def finish(self) -> None:
        """Send what is there, then close. What the client still sends is read and dropped for a moment: closed before
        it is read, it would make the kernel take back what was sent (RFC 1122, 4.2.2.13)."""
        self.on_data, self.on_room = lambda _data: None, lambda _has_room: None
        self._is_finishing = True
        self._waiting_for.clear()
        if not self.is_over:
            self._loop.on_readable(self._socket.fileno(), self._read)
            self._shut_down_when_sent()

    def close(self) -> None:
        """At once."""
        if not self.is_over:
            self.is_over = True
            self._loop.forget(self._socket.fileno())
            self._socket.close()

    def _read(self) -> None:
        while not self.is_over and not self._waiting_for:
            try:
                data = self._socket.recv(_READ_BYTES)
            except _NOT_NOW:
                return
            except OSError:
                data = b""
            self.last_used = time.monotonic()
            if not data:
                self.close()
            self.on_data(data)
            if not isinstance(self._socket, ssl.SSLSocket):
                return  # a second look would cost a system call; what TLS has decrypted already nobody tells

    def _write(self) -> None:
        self._flush()
        if not self._unsent and not self.is_over:
            self._loop.on_writable(self._socket.fileno(), None)
            self.resume_reading(self)
            self.on_room(True)
        if self._is_finishing:
            self._shut_down_when_sent()

    def _flush(self) -> None:
        while self._unsent:
            try:
                sent = self._send_some()
            except _NOT_NOW:
                return
            except OSError:
                self._unsent.clear()
                self.unsent_bytes = 0
                self.close()
                self.on_data(b"")
                return
            self.last_used = time.monotonic()
            self._drop(sent)

    def _send_some(self) -> int:
        if isinstance(self._socket, ssl.SSLSocket):
            return self._socket.send(self._unsent[0])
        return self._socket.sendmsg([self._unsent[index] for index in range(min(len(self._unsent), _MOST_PIECES))])

    def _drop(self, sent: int) -> None:
        self.unsent_bytes -= sent
        while sent:
            first = self._unsent[0]
            if sent < len(first):
                self._unsent[0] = first[sent:]
                return
            sent -= len(first)
            self._unsent.popleft()

    def _shut_down_when_sent(self) -> None:
        if self._unsent or self.is_over or self._is_shut_down:
            return
        self._is_shut_down = True
        self._loop.call_after(_LINGER_SECONDS, self.close)
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
