"""One TCP connection to a port of the pod, tried at 127.0.0.1 and then at ::1, and copied in both directions."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable

from runtime_core.streaming.connection import ClientConnection
from runtime_core.streaming.loop import Loop
from runtime_core.streaming.pumps import Sink, Source

_ADDRESSES = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


class PodPort:
    """`on_data` hears what the pod sends, `on_end` that it sends no more, `on_failure` why there is no connection,
    `on_closed` that both directions have ended. The caller's network namespace is the pod's."""

    def __init__(
        self,
        loop: Loop,
        client: ClientConnection,
        port: int,
        *,
        on_data: Callable[[bytes], None],
        on_end: Callable[[], None],
        on_failure: Callable[[str], None],
        on_closed: Callable[[], None],
    ) -> None:
        self._loop, self._client, self._port = loop, client, port
        self._on_data, self._on_end, self._on_failure, self._on_closed = on_data, on_end, on_failure, on_closed
        self._socket: socket.socket | None = None
        self._source: Source | None = None
        self._sink: Sink | None = None
        self._early = bytearray()  # what the client sent before the port answered
        self._is_paused = self._has_client_ended = self._is_write_closed = False
        self._problems: list[str] = []
        self._addresses = list(_ADDRESSES)
        self._try_next()

    # -- connecting

    def _try_next(self) -> None:
        self._close_socket()
        if not self._addresses:
            self._on_failure("; ".join(self._problems))
            return
        family, address = self._addresses.pop(0)
        try:
            self._socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        except OSError as error:  # the node has no IPv6
            self._refused(address, error.errno or 0)
            return
        code = self._socket.connect_ex((address, self._port))
        if code in (0, errno.EINPROGRESS):
            self._loop.on_writable(self._socket.fileno(), lambda: self._answered(address))
        else:
            self._refused(address, code)

    def _refused(self, address: str, code: int) -> None:
        self._problems.append(f"{address}: {os.strerror(code)}")
        self._try_next()

    def _answered(self, address: str) -> None:
        assert self._socket is not None
        descriptor = self._socket.fileno()
        self._loop.on_writable(descriptor, None)
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._refused(address, code)
            return
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sink = Sink(self._loop, descriptor, self._client, self._close_writing)
        self._source = Source(self._loop, descriptor, self._on_data, self._source_ended)
        if self._is_paused:
            self._source.pause()
        self._sink.write(self._early)
        self._early = bytearray()
        self._client.resume_reading(self)
        if self._has_client_ended:
            self._sink.finish()

    # -- bytes

    def write(self, data: bytes | memoryview) -> None:
        """What the client sends. Before there is a connection it is kept, and the client waits."""
        if self._sink is not None:
            self._sink.write(data)
        else:
            self._early += data
            self._client.pause_reading(self)

    def finish(self) -> None:
        """The client sends no more."""
        self._has_client_ended = True
        if self._sink is not None:
            self._sink.finish()

    def set_paused(self, is_paused: bool) -> None:
        """Read no more from the pod, or go on."""
        self._is_paused = is_paused
        if self._source is not None and is_paused:
            self._source.pause()
        elif self._source is not None:
            self._source.resume()

    # -- ends

    def _close_writing(self) -> None:
        """The client's bytes are all written, or the pod takes no more of them."""
        self._is_write_closed = True
        if self._socket is not None:
            try:
                self._socket.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the pod has reset it: reading tells the end as well
        self._close_when_over()

    def _source_ended(self) -> None:
        self._on_end()
        self._close_when_over()

    def _close_when_over(self) -> None:
        if self._is_write_closed and self._source is not None and not self._source.is_open:
            self.close()
            self._on_closed()

    def close(self) -> None:
        """At once, in both directions."""
        self._client.resume_reading(self)
        if self._sink is not None:
            self._client.resume_reading(self._sink)  # what it has not written nobody waits for any more
        self._close_socket()

    def _close_socket(self) -> None:
        if self._socket is not None:
            self._loop.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None
