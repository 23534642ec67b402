"""SPDY/3.1 as a server reads and writes it, in any pieces, and what it refuses."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime_core.streaming.channels import Aborted, Closed, Data, Ended, Event, Opened, ProtocolError
from runtime_core.streaming.spdy import LARGEST_CONTROL_FRAME, MOST_STREAMS, SpdyFraming
from runtime_core.streaming.spdy_headers import DICTIONARY, LARGEST_BLOCK, MOST_HEADERS
from tests.support.spdy_client import FIN, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, SYN_STREAM, SpdyClient, control


def plain(events: list[Event]) -> list[Event]:
    """Data of one channel joined, as pieces may be cut anywhere."""
    found: list[Event] = []
    for event in events:
        if isinstance(event, Data):
            content = bytes(event.data)
            if found and isinstance(found[-1], Data) and found[-1].channel == event.channel:
                content = bytes(found.pop().data) + content  # type: ignore[union-attr]
            event = Data(event.channel, content)
        found.append(event)
    return found


def conversation() -> tuple[bytes, list[Event]]:
    client = SpdyClient()
    first, opened = client.open({"streamType": "stdin", "port": "80"})
    second, opened_too = client.open({"streamtype": "error"}, fin=True)
    sent = [
        opened, client.data(first, b"hello"), opened_too, control(PING, struct.pack(">I", 7)),
        client.data(first, b"x" * 1000, fin=True), control(SETTINGS, struct.pack(">III", 1, 4, 100)),
        control(77, b"unknown"), control(GOAWAY, struct.pack(">II", 0, 0)),
    ]  # fmt: skip
    events: list[Event] = [
        Opened(first, {"streamtype": "stdin", "port": "80"}), Data(first, b"hello"), Opened(second, {"streamtype": "error"}),
        Ended(second), Data(first, b"x" * 1000), Ended(first), Closed(),
    ]  # fmt: skip
    return b"".join(sent), events


@given(st.lists(st.integers(0, 1300), max_size=40))
def test_frames_mean_the_same_however_they_are_cut(cuts: list[int]) -> None:
    """Events and replies are those of the whole."""
    content, expected = conversation()
    framing, events = SpdyFraming(), []
    places = sorted({0, len(content), *(cut % len(content) for cut in cuts)})
    for begin, end in zip(places, places[1:], strict=False):
        events += [Data(event.channel, bytes(event.data)) if isinstance(event, Data) else event
                   for event in framing.receive(content[begin:end])]  # fmt: skip
    assert plain(events) == plain(expected)
    client = SpdyClient()
    client.streams = SpdyClient().streams
    client.open({}), client.open({})
    client.receive(framing.take_replies())
    assert client.pings == [7]
    assert [stream.is_replied for stream in client.streams.values()] == [True, True]


def opened_pair() -> tuple[SpdyFraming, SpdyClient, int]:
    framing, client = SpdyFraming(), SpdyClient()
    stream, content = client.open({"streamtype": "data"})
    framing.receive(content)
    client.receive(framing.take_replies())
    return framing, client, stream


def test_both_halves_of_a_stream_end_by_themselves() -> None:
    """After ours nothing more is sent on it; what the client sends still comes."""
    framing, client, stream = opened_pair()
    client.receive(b"".join(framing.frame(stream, b"answer")) + framing.finish(stream))
    assert client.streams[stream].data == b"answer" and client.streams[stream].is_finished
    assert framing.frame(stream, b"more") == () and framing.finish(stream) == b""
    assert plain(framing.receive(client.data(stream, b"late", fin=True))) == [Data(stream, b"late"), Ended(stream)]
    assert framing.receive(client.data(stream, b"too late")) == []


def test_a_stream_is_given_up_by_either_side() -> None:
    """Data of a stream that was reset is dropped, without a word."""
    framing, client, stream = opened_pair()
    assert framing.receive(control(RST_STREAM, struct.pack(">II", stream, 5))) == [Aborted(stream)]
    assert framing.receive(client.data(stream, b"x")) == []
    framing, client, stream = opened_pair()
    client.receive(framing.abort(stream))
    assert client.streams[stream].is_reset
    assert framing.receive(client.data(stream, b"x")) == [] and framing.abort(stream) == b""


def test_streams_whose_numbers_do_not_grow_or_are_even_are_reset() -> None:
    """2.3.2: a client's numbers are odd and grow."""
    framing, client, stream = opened_pair()
    client._next = stream
    for number in (stream, stream + 1):
        client._next = number
        _again, content = client.open({})
        assert framing.receive(content) == []
        client.receive(framing.take_replies())
        assert client.streams[number].is_reset


def test_streams_are_bounded() -> None:
    """One more is refused, and the others go on."""
    framing, client = SpdyFraming(), SpdyClient()
    for _number in range(MOST_STREAMS):
        framing.receive(client.open({})[1])
    stream, content = client.open({})
    assert framing.receive(content) == []
    client.receive(framing.take_replies())
    assert client.streams[stream].is_reset and not client.streams[1].is_reset


def block(headers: bytes) -> bytes:
    deflater = zlib.compressobj(zdict=DICTIONARY)
    return deflater.compress(headers) + deflater.flush(zlib.Z_SYNC_FLUSH)


def syn(compressed: bytes) -> bytes:
    return control(SYN_STREAM, struct.pack(">IIBB", 1, 0, 0, 0) + compressed)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (struct.pack(">II", 0x80000000 | 2 << 16 | SYN_STREAM, 0), "version 2"),
        (struct.pack(">II", 0x80000000 | 3 << 16 | SYN_STREAM, LARGEST_CONTROL_FRAME + 1), "longer"),
        (control(SYN_STREAM, b"123"), "too short"),
        (control(RST_STREAM, b"1234"), "too short"),
        (control(PING, b""), "too short"),
        (control(SETTINGS, bytes(4 + 8 * 33)), "SETTINGS"),
        (syn(b"no zlib"), "header block"),
        (syn(block(struct.pack(">I", MOST_HEADERS + 1))), "headers"),
        (syn(block(struct.pack(">I", 0xFFFFFFFF))), "headers"),
        (syn(block(struct.pack(">II", 1, 0xFFFFFFF0))), "middle"),
        (syn(block(struct.pack(">I", 1))), "middle"),
        (syn(block(b"")), "middle"),
        (syn(block(struct.pack(">I", 1) + bytes(LARGEST_BLOCK))), "larger"),
        (syn(block(bytes(8 * 1024 * 1024))), "larger"),
        (control(HEADERS, struct.pack(">I", 1) + b"no zlib"), "header block"),
    ],
)  # fmt: skip
def test_what_is_against_the_rules_ends_the_connection(content: bytes, word: str) -> None:
    """With a reason; CVE-2026-35469 among them."""
    with pytest.raises(ProtocolError, match=word):
        SpdyFraming().receive(content)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_any_bytes_are_frames_or_a_protocol_error(first: bytes, second: bytes) -> None:
    """Nothing else is raised."""
    framing = SpdyFraming()
    try:
        framing.receive(conversation()[0][: len(first)] + first)
        framing.receive(second)
    except ProtocolError:
        pass


def test_a_header_that_ends_a_stream_is_read() -> None:
    """HEADERS with FIN: the state of the compression goes on."""
    framing, client, stream = opened_pair()
    assert framing.receive(control(HEADERS, struct.pack(">I", stream) + client._writer.write({"a": "b"}), FIN)) == [Ended(stream)]
    again, content = client.open({"streamtype": "error"})
    assert framing.receive(content) == [Opened(again, {"streamtype": "error"})]
