"""The CRI log format: lines, partial lines, and what reads cut apart."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runtime_core.monitor.cri_log import LONGEST, LineWriter, timestamp

_NOW = 1_475_712_429_794_669_702
_STAMP = b"2016-10-06T00:07:09.794669702Z"


def test_a_timestamp_has_nine_digits() -> None:
    """RFC 3339 in UTC, nanoseconds in full."""
    assert timestamp(_NOW) == _STAMP
    assert timestamp(1_000_000_000).endswith(b"01.000000000Z")


def test_a_line_is_full_when_its_end_has_come() -> None:
    """What has no end yet waits for it."""
    writer = LineWriter("stdout")
    assert writer.feed(b"one\ntw", _NOW) == _STAMP + b" stdout F one\n"
    assert writer.feed(b"o\n", _NOW) == _STAMP + b" stdout F two\n"
    assert writer.finish(_NOW) == b""


def test_the_last_line_needs_no_end() -> None:
    """At the end of the stream the rest is a line."""
    writer = LineWriter("stderr")
    assert writer.feed(b"rest", _NOW) == b""
    assert writer.finish(_NOW) == _STAMP + b" stderr F rest\n"


def test_an_overlong_line_is_cut_into_partial_ones() -> None:
    """Each at most 16 KiB, the last one full."""
    writer = LineWriter("stdout")
    out = writer.feed(b"x" * (2 * LONGEST + 5) + b"\n", _NOW)
    tags = [line.split(b" ", 3)[2] for line in out.splitlines()]
    assert tags == [b"P", b"P", b"F"]


@given(st.lists(st.binary(max_size=40), max_size=12))
def test_nothing_is_lost_however_it_is_cut(reads: list[bytes]) -> None:
    """The contents, put together again, are what the program wrote."""
    writer = LineWriter("stdout")
    out = b"".join(writer.feed(data, _NOW) for data in reads if data) + writer.finish(_NOW)
    contents = b""
    for line in out.split(b"\n")[:-1]:
        tag, content = line.split(b" ", 3)[2:]
        contents += content + (b"\n" if tag == b"F" else b"")
    written = b"".join(reads)
    assert contents == (written if written.endswith(b"\n") or not written else written + b"\n")
