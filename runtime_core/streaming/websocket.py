"""Kubernetes' channels over WebSocket messages: the first byte of a message is its channel's number. No I/O.

Sources: RFC 6455 (by wsproto); the subprotocols *.channel.k8s.io of k8s.io/streaming: binary messages, or text with
the channel as a digit and base64 behind it; from v5 on [255, channel] ends a channel's input; and the tunnel of
SPDY/3.1 through binary messages.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence

from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError

from runtime_core.streaming.channels import Closed, Data, Ended, Event, Framing, Opened, ProtocolError

_CLOSE_CHANNEL = 255


class _Messages:
    """The bytes of WebSocket messages, as they come: a message is not collected."""

    def __init__(self) -> None:
        self._replies = bytearray()
        self._connection = Connection(ConnectionType.SERVER)

    def receive(self, data: bytes) -> Iterator[tuple[bytes, bool] | None]:
        """(a piece, it is the last of its message), or None when the client closes the connection."""
        try:
            self._connection.receive_data(data)
        except LocalProtocolError:
            return  # it is closed
        for event in self._connection.events():
            if isinstance(event, BytesMessage):
                yield bytes(event.data), event.message_finished
            elif isinstance(event, TextMessage):
                yield event.data.encode(), event.message_finished
            elif isinstance(event, Ping):
                self._replies += self._connection.send(event.response())
            elif isinstance(event, CloseConnection):
                self._replies += self._send(event.response())
                yield None
                return

    def take_replies(self) -> bytes:
        """Pongs, and the answer to a close."""
        replies = bytes(self._replies)
        self._replies.clear()
        return replies

    def binary(self, data: bytes) -> bytes:
        """The frame of a message."""
        return self._send(BytesMessage(data=data))

    def text(self, data: str) -> bytes:
        """The frame of a message."""
        return self._send(TextMessage(data=data))

    def close(self) -> bytes:
        """The frame that ends the connection."""
        return self._send(CloseConnection(code=CloseReason.NORMAL_CLOSURE))

    def _send(self, message: BytesMessage | TextMessage | CloseConnection) -> bytes:
        try:
            return self._connection.send(message)
        except LocalProtocolError:
            return b""  # the client has closed the connection


class ChannelFraming:
    """Channels 0 to `channels` - 1, all of them open from the beginning. See channels.Framing."""

    def __init__(self, channels: int, *, is_base64: bool = False, has_close: bool = False) -> None:
        self._messages = _Messages()
        self._channels, self._is_base64, self._has_close = channels, is_base64, has_close
        self._channel = -1  # of the message that is being received; -1 before its first byte
        self._undecoded = b""  # of a base64 message
        self._opened = [Opened(channel) for channel in range(channels)]

    def take_replies(self) -> bytes:
        """See channels.Framing."""
        return self._messages.take_replies()

    def receive(self, data: bytes) -> list[Event]:
        """See channels.Framing. What is meant for a channel that is not there is dropped, as Kubernetes does."""
        events: list[Event] = list(self._opened)
        self._opened = []
        for piece in self._messages.receive(data):
            if piece is None:
                events.append(Closed())
                break
            self._receive_piece(*piece, events)
        return events

    def _receive_piece(self, piece: bytes, is_last: bool, events: list[Event]) -> None:
        if self._channel < 0 and piece:
            self._channel, piece = piece[0] - (ord("0") if self._is_base64 else 0), piece[1:]
        if self._has_close and self._channel == _CLOSE_CHANNEL:
            events.extend(Ended(channel) for channel in piece if channel < self._channels)
        elif 0 <= self._channel < self._channels:
            content = self._decode(piece, is_last=is_last) if self._is_base64 else piece
            if content:
                events.append(Data(self._channel, content))
        if is_last:
            self._channel = -1

    def _decode(self, piece: bytes, *, is_last: bool) -> bytes:
        """Base64 comes in groups of four characters."""
        piece = self._undecoded + piece
        whole = len(piece) if is_last else len(piece) // 4 * 4
        self._undecoded = piece[whole:]
        try:
            return base64.b64decode(piece[:whole], validate=True)
        except binascii.Error as error:
            raise ProtocolError(f"WebSocket: a message on channel {self._channel} is not base64: {error}") from None

    def frame(self, channel: int, data: bytes) -> Sequence[bytes]:
        """See channels.Framing: one message."""
        if self._is_base64:
            return (self._messages.text(f"{channel}{base64.b64encode(data).decode()}"),)
        return (self._messages.binary(bytes((channel,)) + data),)

    def finish(self, channel: int) -> bytes:
        """See channels.Framing: only the client can end a channel alone."""
        return b""

    def abort(self, channel: int) -> bytes:
        """See channels.Framing: only the client can end a channel alone."""
        return b""

    def close(self) -> bytes:
        """See channels.Framing: a close frame."""
        return self._messages.close()


class TunnelFraming:
    """Another framing, carried through binary messages: the tunnel of kubectl port-forward."""

    def __init__(self, inner: Framing) -> None:
        self._messages, self._inner = _Messages(), inner

    def take_replies(self) -> bytes:
        """See channels.Framing."""
        return b"".join(self._wrap(self._inner.take_replies())) + self._messages.take_replies()

    def receive(self, data: bytes) -> list[Event]:
        """See channels.Framing."""
        events: list[Event] = []
        for piece in self._messages.receive(data):
            if piece is None:
                events.append(Closed())
                break
            events += self._inner.receive(piece[0])
        return events

    def frame(self, channel: int, data: bytes) -> Sequence[bytes]:
        """See channels.Framing."""
        return self._wrap(b"".join(self._inner.frame(channel, data)))

    def _wrap(self, content: bytes) -> Sequence[bytes]:
        return (self._messages.binary(content),) if content else ()

    def finish(self, channel: int) -> bytes:
        """See channels.Framing."""
        return b"".join(self._wrap(self._inner.finish(channel)))

    def abort(self, channel: int) -> bytes:
        """See channels.Framing."""
        return b"".join(self._wrap(self._inner.abort(channel)))

    def close(self) -> bytes:
        """See channels.Framing."""
        return b"".join(self._wrap(self._inner.close())) + self._messages.close()
