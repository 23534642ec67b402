"""Channels over WebSocket messages, whole and in pieces, plain and base64, and the tunnel of SPDY."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Message, Ping, Pong, TextMessage

from runtime_core.streaming.channels import Closed, Data, Ended, Event, Opened, ProtocolError
from runtime_core.streaming.spdy import SpdyFraming
from runtime_core.streaming.websocket import ChannelFraming, TunnelFraming
from tests.support.spdy_client import SpdyClient


def client() -> Connection:
    return Connection(ConnectionType.CLIENT)


def opened(framing: ChannelFraming) -> ChannelFraming:
    assert framing.receive(b"") == [Opened(0), Opened(1), Opened(2), Opened(3), Opened(4)]
    return framing


def received(peer: Connection, content: bytes) -> list[bytes | str]:
    peer.receive_data(content)
    return [event.data for event in peer.events() if isinstance(event, Message)]


def test_a_message_is_data_of_its_channel() -> None:
    """And one is sent for each piece."""
    framing, peer = opened(ChannelFraming(5)), client()
    assert framing.receive(peer.send(BytesMessage(data=b"\0hello"))) == [Data(0, b"hello")]
    assert framing.receive(peer.send(BytesMessage(data=b"\x09nobody"))) == []
    assert framing.receive(peer.send(BytesMessage(data=b""))) == []
    assert received(peer, b"".join(framing.frame(1, b"out"))) == [b"\1out"]
    assert framing.finish(1) == b""


@given(st.lists(st.integers(1, 400), min_size=1, max_size=30), st.booleans())
def test_a_message_in_pieces_is_data_in_pieces(cuts: list[int], is_base64: bool) -> None:
    """Fragments of WebSocket and of TCP are no bounds of data."""
    content = bytes(range(256)) * 4
    framing, peer = opened(ChannelFraming(5, is_base64=is_base64)), client()
    if is_base64:
        text = "0" + base64.b64encode(content).decode()
        parts = [TextMessage(data=text[:100], message_finished=False), TextMessage(data=text[100:])]
    else:
        parts = [BytesMessage(data=b"\0" + content[:100], message_finished=False), BytesMessage(data=content[100:])]
    sent = b"".join(peer.send(part) for part in parts)
    events: list[Event] = []
    position = 0
    for cut in [*cuts, len(sent)]:
        events += framing.receive(sent[position : position + cut])
        position += cut
    assert b"".join(bytes(event.data) for event in events if isinstance(event, Data)) == content


def test_base64_goes_both_ways() -> None:
    """The channel is a digit."""
    framing, peer = opened(ChannelFraming(5, is_base64=True)), client()
    assert framing.receive(peer.send(TextMessage(data="0aGk="))) == [Data(0, b"hi")]
    assert received(peer, b"".join(framing.frame(2, b"err"))) == ["2ZXJy"]
    with pytest.raises(ProtocolError, match="base64"):
        framing.receive(peer.send(TextMessage(data="0???")))


def test_v5_ends_a_channel() -> None:
    """[255, channel]; before v5 that is a channel that nobody knows."""
    peer = client()
    assert opened(ChannelFraming(5, has_close=True)).receive(peer.send(BytesMessage(data=b"\xff\0"))) == [Ended(0)]
    assert opened(ChannelFraming(5)).receive(peer.send(BytesMessage(data=b"\xff\0"))) == []
    assert opened(ChannelFraming(5, has_close=True)).receive(peer.send(BytesMessage(data=b"\xff\x09"))) == []


def test_pings_and_closes_are_answered() -> None:
    """And nothing can be sent after a close."""
    framing, peer = opened(ChannelFraming(5)), client()
    framing.receive(peer.send(Ping(payload=b"x")))
    peer.receive_data(framing.take_replies())
    assert [type(event) for event in peer.events()] == [Pong]
    assert framing.receive(peer.send(CloseConnection(code=1000))) == [Closed()]
    peer.receive_data(framing.take_replies())
    assert [type(event) for event in peer.events()] == [CloseConnection]
    assert framing.frame(1, b"late") == (b"",) and framing.close() == b"" and framing.receive(b"x") == []


@given(st.binary(max_size=300))
def test_any_bytes_are_messages_or_an_end(content: bytes) -> None:
    """What is no WebSocket frame closes the connection; nothing else is raised."""
    try:
        ChannelFraming(5, has_close=True).receive(content)
        ChannelFraming(5, is_base64=True).receive(content)
        TunnelFraming(SpdyFraming()).receive(content)
    except ProtocolError:
        pass


def test_spdy_goes_through_the_tunnel() -> None:
    """Its frames may be cut over messages; its replies are messages too."""
    framing, peer, inner = TunnelFraming(SpdyFraming()), client(), SpdyClient()
    stream, content = inner.open({"streamtype": "data"})
    content += inner.data(stream, b"hello", fin=True)
    events: list[Event] = []
    for piece in (content[:5], content[5:]):
        events += framing.receive(peer.send(BytesMessage(data=piece)))
    assert events == [Opened(stream, {"streamtype": "data"}), Data(stream, b"hello"), Ended(stream)]
    for message in received(peer, framing.take_replies() + b"".join(framing.frame(stream, b"back")) + framing.finish(stream)):
        inner.receive(message)  # type: ignore[arg-type]
    assert (inner.streams[stream].is_replied, bytes(inner.streams[stream].data), inner.streams[stream].is_finished) == (
        True, b"back", True,
    )  # fmt: skip
