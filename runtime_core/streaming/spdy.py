"""SPDY/3.1, the server's side, as Kubernetes' clients speak it. No I/O.

Source: SPDY Protocol draft 3.1. Streams are opened by the client. Windows are not kept: the clients (moby/spdystream)
neither send nor read them, so that TCP alone holds a sender back. Data is handed on as it comes, and never
collected: a frame may have 16 MiB.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from runtime_core.errors import InvalidArgument
from runtime_core.streaming.channels import Aborted, Closed, Data, Ended, Event, Opened, ProtocolError
from runtime_core.streaming.spdy_headers import HeaderReader, HeaderWriter

_VERSION = 3
_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _HEADERS, _WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
_FIN, _UNIDIRECTIONAL = 0x01, 0x02
_PROTOCOL_ERROR, _REFUSED_STREAM, _CANCEL = 1, 3, 5
_CONTROL = 0x80000000
_HEAD = struct.Struct(">II")  # control bit, version and type, or stream; flags and length
#: a control frame is collected before it is read
LARGEST_CONTROL_FRAME = 64 * 1024
MOST_STREAMS = 1024
#: a settings entry has 8 bytes; the protocol knows 8 of them (CVE-2026-35469)
_LARGEST_SETTINGS = 4 + 8 * 32
#: of one frame that is sent
LARGEST_DATA = (1 << 24) - 1


class SpdyFraming:
    """One connection's state; a channel's number is its stream's. See channels.Framing."""

    def __init__(self) -> None:
        self._replies = bytearray()
        self._collected = b""  # the beginning of a frame's head, or of a control frame
        self._left = 0  # of a data frame
        self._data_stream = 0
        self._data_flags = 0
        self._header_reader, self._header_writer = HeaderReader(), HeaderWriter()
        self._last_stream = 0
        #: stream → is the client's half open, is ours
        self._open: dict[int, tuple[bool, bool]] = {}

    def receive(self, data: bytes) -> list[Event]:
        """See channels.Framing. Frames of streams that have ended meanwhile are dropped."""
        events: list[Event] = []
        view = memoryview(self._collected + data if self._collected else data)
        self._collected = b""
        position, end = 0, len(view)
        while position < end:
            if self._left:
                taken = min(self._left, end - position)
                self._receive_data(view[position : position + taken], events)
                position += taken
                continue
            head = self._head(view[position:])
            if head is None:
                self._collected = bytes(view[position:])
                break
            position += self._receive_frame(head, view[position:], events)
        return events

    def take_replies(self) -> bytes:
        """See channels.Framing."""
        replies = bytes(self._replies)
        self._replies.clear()
        return replies

    def _head(self, view: memoryview) -> tuple[int, int, int] | None:
        """First word, flags and length of the frame that begins here; None while it is not whole enough."""
        if len(view) < _HEAD.size:
            return None
        first, rest = _HEAD.unpack_from(view)
        flags, length = rest >> 24, rest & 0xFFFFFF
        if first & _CONTROL:
            if length > LARGEST_CONTROL_FRAME:
                raise ProtocolError(f"SPDY: a control frame of {length} bytes is longer than {LARGEST_CONTROL_FRAME}")
            if len(view) < _HEAD.size + length:
                return None
        return first, flags, length

    def _receive_frame(self, head: tuple[int, int, int], view: memoryview, events: list[Event]) -> int:
        """Take a control frame, or the head of a data frame, in; its size."""
        first, flags, length = head
        if first & _CONTROL:
            self._receive_control(first, flags, bytes(view[_HEAD.size : _HEAD.size + length]), events)
            return _HEAD.size + length
        self._data_stream, self._data_flags, self._left = first, flags, length
        if not length:
            self._data_ended(events)
        return _HEAD.size

    def _receive_data(self, data: memoryview, events: list[Event]) -> None:
        self._left -= len(data)
        if self._open.get(self._data_stream, (False, False))[0]:
            events.append(Data(self._data_stream, data))
        if not self._left:
            self._data_ended(events)

    def _data_ended(self, events: list[Event]) -> None:
        if self._data_flags & _FIN:
            self._client_finished(self._data_stream, events)

    def _client_finished(self, stream: int, events: list[Event]) -> None:
        theirs, ours = self._open.get(stream, (False, False))
        if theirs:
            self._set_open(stream, theirs=False, ours=ours)
            events.append(Ended(stream))

    def _set_open(self, stream: int, *, theirs: bool, ours: bool) -> None:
        if theirs or ours:
            self._open[stream] = (theirs, ours)
        else:
            self._open.pop(stream, None)

    # -- control frames

    def _receive_control(self, first: int, flags: int, payload: bytes, events: list[Event]) -> None:
        version, kind = first >> 16 & 0x7FFF, first & 0xFFFF
        if version != _VERSION:
            raise ProtocolError(f"SPDY: version {version} is not {_VERSION}")
        read = _CONTROL_FRAMES.get(kind)
        if read is None:
            return  # 2.2.1: unknown types are ignored
        try:
            read(self, flags, payload, events)
        except struct.error:
            raise ProtocolError(f"SPDY: a control frame of type {kind} with {len(payload)} bytes is too short") from None

    def _syn_stream(self, flags: int, payload: bytes, events: list[Event]) -> None:
        stream = struct.unpack_from(">I", payload)[0] & 0x7FFFFFFF
        headers = self._read_headers(payload[10:])
        if stream % 2 == 0 or stream <= self._last_stream:
            self._reset(stream, _PROTOCOL_ERROR)
            return
        self._last_stream = stream
        if len(self._open) >= MOST_STREAMS:
            self._reset(stream, _REFUSED_STREAM)
            return
        self._open[stream] = (True, not flags & _UNIDIRECTIONAL)
        self._replies += _control(_SYN_REPLY, struct.pack(">I", stream) + self._header_writer.write({}))
        events.append(Opened(stream, headers))
        if flags & _FIN:
            self._client_finished(stream, events)

    def _rst_stream(self, _flags: int, payload: bytes, events: list[Event]) -> None:
        stream, _status = struct.unpack_from(">II", payload)
        if self._open.pop(stream, None) is not None:
            events.append(Aborted(stream))

    def _settings(self, _flags: int, payload: bytes, _events: list[Event]) -> None:
        if len(payload) > _LARGEST_SETTINGS:
            raise ProtocolError(f"SPDY: SETTINGS of {len(payload)} bytes are longer than {_LARGEST_SETTINGS}")

    def _ping(self, _flags: int, payload: bytes, _events: list[Event]) -> None:
        (number,) = struct.unpack_from(">I", payload)
        if number % 2:  # the client's own; even ones would be answers to ours
            self._replies += _control(_PING, struct.pack(">I", number))

    def _goaway(self, _flags: int, _payload: bytes, events: list[Event]) -> None:
        events.append(Closed())

    def _headers(self, flags: int, payload: bytes, events: list[Event]) -> None:
        (stream,) = struct.unpack_from(">I", payload)
        self._read_headers(payload[4:])  # the state of the compression goes on
        if flags & _FIN:
            self._client_finished(stream, events)

    def _window_update(self, _flags: int, payload: bytes, _events: list[Event]) -> None:
        struct.unpack_from(">II", payload)

    def _read_headers(self, compressed: bytes) -> dict[str, str]:
        try:
            return self._header_reader.read(compressed)
        except InvalidArgument as error:
            raise ProtocolError(str(error)) from None

    def _reset(self, stream: int, status: int) -> None:
        self._replies += _control(_RST_STREAM, struct.pack(">II", stream, status))

    # -- sending

    def frame(self, channel: int, data: bytes) -> Sequence[bytes]:
        """See channels.Framing; `data` has LARGEST_DATA bytes at most. Nothing for a channel that is closed."""
        if not self._open.get(channel, (False, False))[1]:
            return ()
        return (_HEAD.pack(channel, len(data)), data)

    def finish(self, channel: int) -> bytes:
        """See channels.Framing."""
        theirs, ours = self._open.get(channel, (False, False))
        if not ours:
            return b""
        self._set_open(channel, theirs=theirs, ours=False)
        return _HEAD.pack(channel, _FIN << 24)

    def abort(self, channel: int) -> bytes:
        """See channels.Framing."""
        if self._open.pop(channel, None) is None:
            return b""
        return _control(_RST_STREAM, struct.pack(">II", channel, _CANCEL))

    def close(self) -> bytes:
        """See channels.Framing: GOAWAY, status OK."""
        return _control(_GOAWAY, struct.pack(">II", self._last_stream, 0))


def _control(kind: int, payload: bytes) -> bytes:
    return _HEAD.pack(_CONTROL | _VERSION << 16 | kind, len(payload)) + payload


_CONTROL_FRAMES = {
    _SYN_STREAM: SpdyFraming._syn_stream,
    _RST_STREAM: SpdyFraming._rst_stream,
    _SETTINGS: SpdyFraming._settings,
    _PING: SpdyFraming._ping,
    _GOAWAY: SpdyFraming._goaway,
    _HEADERS: SpdyFraming._headers,
    _WINDOW_UPDATE: SpdyFraming._window_update,
}
