"""The client's side of SPDY/3.1, small and exact, for tests: it shows what a server really sends."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from runtime_core.streaming.spdy_headers import HeaderReader, HeaderWriter

SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS, PING, GOAWAY, HEADERS, WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
FIN = 1


@dataclass
class Received:
    """What has come of one stream."""

    data: bytearray = field(default_factory=bytearray)
    is_replied: bool = False
    is_finished: bool = False
    is_reset: bool = False


class SpdyClient:
    """Bytes to send are returned; bytes received are taken by `receive`."""

    def __init__(self) -> None:
        self._writer, self._reader = HeaderWriter(), HeaderReader()
        self._next, self._buffer = 1, b""
        self.streams: dict[int, Received] = {}
        self.pings: list[int] = []
        self.is_gone = False

    def open(self, headers: dict[str, str], *, fin: bool = False) -> tuple[int, bytes]:
        """(stream, its SYN_STREAM)."""
        stream, self._next = self._next, self._next + 2
        self.streams[stream] = Received()
        payload = struct.pack(">IIBB", stream, 0, 0, 0) + self._writer.write(headers)
        return stream, control(SYN_STREAM, payload, FIN if fin else 0)

    def data(self, stream: int, content: bytes, *, fin: bool = False) -> bytes:
        return struct.pack(">II", stream, (FIN if fin else 0) << 24 | len(content)) + content

    def receive(self, data: bytes) -> None:
        """Whole frames only; the rest waits."""
        content, position = self._buffer + data, 0
        self._buffer = b""
        while position < len(content):
            if len(content) - position < 8:
                break
            first, rest = struct.unpack_from(">II", content, position)
            length, flags = rest & 0xFFFFFF, rest >> 24
            if len(content) - position < 8 + length:
                break
            payload = content[position + 8 : position + 8 + length]
            position += 8 + length
            if first & 0x80000000:
                self._control(first & 0xFFFF, flags, payload)
            else:
                self.streams[first].data += payload
                self.streams[first].is_finished |= bool(flags & FIN)
        self._buffer = content[position:]

    def _control(self, kind: int, flags: int, payload: bytes) -> None:
        (number,) = struct.unpack_from(">I", payload)
        if kind == SYN_REPLY:
            self._reader.read(payload[4:])
            self.streams[number].is_replied = True
        elif kind == RST_STREAM:
            self.streams.setdefault(number, Received()).is_reset = True
        elif kind == PING:
            self.pings.append(number)
        elif kind == GOAWAY:
            self.is_gone = True


def control(kind: int, payload: bytes, flags: int = 0) -> bytes:
    return struct.pack(">II", 0x80000000 | 3 << 16 | kind, flags << 24 | len(payload)) + payload
