"""A client of the streaming server: SPDY or WebSocket, seen byte by byte."""

from __future__ import annotations

import base64
import json
import socket
import time
from typing import Any
from urllib.parse import urlsplit

from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Message, TextMessage

from tests.support.spdy_client import Received, SpdyClient

_SECONDS = 30.0
CHANNELS = ("stdin", "stdout", "stderr", "error", "resize")


def connect(url: str, headers: str) -> tuple[socket.socket, str, bytes]:
    """Send the request: the connection, the answer's head, and what came behind it."""
    parts = urlsplit(url)
    assert parts.hostname and parts.port
    sock = socket.create_connection((parts.hostname, parts.port), timeout=_SECONDS)
    sock.sendall(f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n{headers}\r\n".encode())
    content = b""
    while b"\r\n\r\n" not in content:
        more = sock.recv(65536)
        if not more:
            break
        content += more
    head, _end, rest = content.partition(b"\r\n\r\n")
    return sock, head.decode(), rest


class _Streams:
    """What both clients do alike: `data` and `receive` are theirs."""

    sock: socket.socket

    def data(self, name: str) -> bytes:
        raise NotImplementedError

    def receive(self) -> bool:
        """Take in what has come; False at the end of the connection."""
        raise NotImplementedError

    def _content(self) -> bytes:
        try:
            return self.sock.recv(1 << 20)
        except ConnectionResetError:
            return b""

    def receive_until(self, name: str, wanted: bytes) -> None:
        deadline = time.monotonic() + _SECONDS
        while wanted not in self.data(name):
            assert self.receive() and time.monotonic() < deadline, (name, self.data(name), self.data("error"))

    def finish(self) -> Any:
        """Read to the end of the connection; the status."""
        while self.receive():
            pass
        self.sock.close()
        return json.loads(self.data("error")) if self.data("error") else None

    def close(self) -> None:
        self.sock.close()


class SpdyStreams(_Streams):
    """Streams by name, over SPDY/3.1."""

    def __init__(self, url: str, names: tuple[str, ...], protocol: str = "v4.channel.k8s.io", **headers: str) -> None:
        self.sock, self.head, rest = connect(
            url, f"Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: {protocol}\r\n"
        )
        assert self.head.startswith("HTTP/1.1 101 "), self.head
        self.spdy, self.streams = SpdyClient(), dict[str, int]()
        self.spdy.receive(rest)
        for name in names:
            self.open(name, {"streamtype": name, **headers})

    def open(self, name: str, headers: dict[str, str]) -> None:
        self.streams[name], content = self.spdy.open(headers)
        self.sock.sendall(content)

    def send(self, name: str, data: bytes, *, fin: bool = False) -> None:
        self.sock.sendall(self.spdy.data(self.streams[name], data, fin=fin))

    def end(self, name: str) -> None:
        self.send(name, b"", fin=True)

    def stream(self, name: str) -> Received:
        return self.spdy.streams[self.streams[name]]

    def data(self, name: str) -> bytes:
        return bytes(self.stream(name).data)

    def receive(self) -> bool:
        """False at the end of the connection."""
        content = self._content()
        self.spdy.receive(content)
        return bool(content)


class WebSocketStreams(_Streams):
    """The same over WebSocket messages."""

    def __init__(self, url: str, names: tuple[str, ...], protocol: str = "v5.channel.k8s.io") -> None:
        key = base64.b64encode(bytes(16)).decode()
        offer = f"Sec-WebSocket-Protocol: {protocol}\r\n" if protocol else ""
        self.sock, self.head, rest = connect(
            url,
            f"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{offer}",
        )
        assert self.head.startswith("HTTP/1.1 101 "), self.head
        self.is_base64 = "base64" in protocol
        self.connection = Connection(ConnectionType.CLIENT)
        self.received: dict[int, bytearray] = {}
        self._take(rest)

    def _send(self, channel: int, data: bytes) -> None:
        message: Any = BytesMessage(data=bytes((channel,)) + data)
        if self.is_base64:
            message = TextMessage(data=f"{channel}{base64.b64encode(data).decode()}")
        self.sock.sendall(self.connection.send(message))

    def send(self, name: str, data: bytes) -> None:
        self._send(CHANNELS.index(name), data)

    def end(self, name: str) -> None:
        self.sock.sendall(self.connection.send(BytesMessage(data=bytes((255, CHANNELS.index(name))))))

    def data(self, name: str) -> bytes:
        return bytes(self.received.get(CHANNELS.index(name), b""))

    def _take(self, content: bytes) -> None:
        self.connection.receive_data(content)
        for event in self.connection.events():
            if isinstance(event, Message):
                self._message(event.data)
            elif isinstance(event, CloseConnection):
                self.sock.sendall(self.connection.send(event.response()))

    def _message(self, data: Any) -> None:
        # every frame of the server is a whole message; large ones come in pieces of wsproto's making
        if self.is_base64:
            self.received.setdefault(int(data[0]), bytearray()).extend(base64.b64decode(data[1:]))
        else:
            self.received.setdefault(data[0], bytearray()).extend(data[1:])

    def receive(self) -> bool:
        content = self._content()
        if content:
            self._take(content)
        return bool(content)
