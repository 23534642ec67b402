"""The HTTP request with which a stream begins, and the answer to it. No I/O.

Source: RFC 9110, 7.8 "Upgrade"; RFC 6455, 4.2; k8s.io/streaming for the headers of the SPDY handshake.
HTTP is read by h11, the key of a WebSocket answered by wsproto.
"""

from __future__ import annotations

from dataclasses import dataclass

import h11
from wsproto.utilities import generate_accept_token

from runtime_core.errors import InvalidArgument

#: request line and headers together
LARGEST_REQUEST = 64 * 1024
_PROTOCOL_HEADER = "x-stream-protocol-version"


@dataclass(frozen=True, slots=True)
class UpgradeRequest:
    """What the client asks for. `protocols` in its order; `rest` are bytes that came behind the request."""

    path: str
    is_websocket: bool
    protocols: tuple[str, ...]
    websocket_key: str
    rest: bytes


class RequestReader:
    """Collects bytes until the request is whole."""

    def __init__(self) -> None:
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=LARGEST_REQUEST)

    def receive(self, data: bytes) -> UpgradeRequest | None:
        """The request, None while it is not whole; InvalidArgument when it is none or asks for no upgrade."""
        try:
            self._connection.receive_data(data)
            event = self._connection.next_event()
        except h11.RemoteProtocolError as error:
            raise InvalidArgument(f"HTTP request: {error}") from None
        if event is h11.NEED_DATA:
            return None
        if not isinstance(event, h11.Request):
            raise InvalidArgument("HTTP request: the connection was closed before it was whole")
        return _read(event, self._connection.trailing_data[0])


def _read(request: h11.Request, rest: bytes) -> UpgradeRequest:
    headers: dict[str, list[str]] = {}
    for name, value in request.headers:
        headers.setdefault(name.decode(), []).append(value.decode("latin-1"))
    upgrade = ", ".join(headers.get("upgrade", [])).lower()
    if "upgrade" not in ", ".join(headers.get("connection", [])).lower():
        raise InvalidArgument("HTTP request: it has no header Connection: Upgrade")
    path = request.target.decode("latin-1").partition("?")[0]
    if "websocket" in upgrade:
        key = headers.get("sec-websocket-key", [""])[0]
        if not key or headers.get("sec-websocket-version") != ["13"]:
            raise InvalidArgument("HTTP request: Sec-WebSocket-Key is missing, or Sec-WebSocket-Version is not 13")
        return UpgradeRequest(path, True, _listed(headers.get("sec-websocket-protocol", [])), key, rest)
    if "spdy/3.1" in upgrade:
        return UpgradeRequest(path, False, _listed(headers.get(_PROTOCOL_HEADER, [])), "", rest)
    raise InvalidArgument(f"HTTP request: Upgrade: {upgrade!r} is neither SPDY/3.1 nor websocket")


def _listed(values: list[str]) -> tuple[str, ...]:
    return tuple(part.strip() for value in values for part in value.split(",") if part.strip())


def accept(request: UpgradeRequest, protocol: str) -> bytes:
    """101 Switching Protocols; `protocol` "" when none was asked for."""
    if request.is_websocket:
        headers = [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", generate_accept_token(request.websocket_key.encode()).decode()),
        ]
        named = "Sec-WebSocket-Protocol"
    else:
        headers = [("Upgrade", "SPDY/3.1"), ("Connection", "Upgrade")]
        named = "X-Stream-Protocol-Version"
    return _answer("101 Switching Protocols", [*headers, *([(named, protocol)] if protocol else [])])


def refuse(status: str, message: str, accepted: tuple[str, ...] = ()) -> bytes:
    """A whole answer, behind which the connection is closed; `status` as "404 Not Found"."""
    body = message.encode() + b"\n"
    headers = [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
        *(("X-Accepted-Stream-Protocol-Versions", protocol) for protocol in accepted),
    ]
    return _answer(status, headers) + body


def _answer(status: str, headers: list[tuple[str, str]]) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers), "", ""]).encode("latin-1")
