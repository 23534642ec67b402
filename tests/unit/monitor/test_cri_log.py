"""The CRI log format: lines, partial lines, and what reads cut apart."""

from __future__ import annotations

import pytest
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


def test_half_a_line_is_cut_off() -> None:
    """Of what a full disk has taken, the bytes after the last line's end are too many."""
    writer = LineWriter("stdout")
    lines = writer.feed(b"one\ntwo\nthree\n", _NOW)
    first = len(lines.split(b"\n")[0]) + 1
    for written in range(len(lines)):
        kept = lines[: written - writer.lost(lines, written)]
        assert kept in (b"", lines[:first], lines[: 2 * first], lines)
    assert writer.feed(b"four\n", _NOW) == _STAMP + b" stdout F four\n"


@pytest.mark.parametrize("taken", [0, 1, LONGEST])
def test_pieces_whose_end_is_lost_get_one(taken: int) -> None:
    """Else the reader would put them before the next line."""
    writer = LineWriter("stdout")
    piece = writer.feed(b"x" * LONGEST, _NOW)
    assert piece.split(b" ", 3)[2] == b"P"
    lost = writer.feed(b"y" * LONGEST + b"\n", _NOW)
    assert writer.lost(lost, taken) == taken
    again = writer.feed(b"z\n", _NOW)
    assert again == _STAMP + b" stdout F \n" + _STAMP + b" stdout F z\n"
    assert writer.lost(again, 0) == 0
    assert writer.feed(b"z\n", _NOW) == again
    assert writer.feed(b"next\n", _NOW) == _STAMP + b" stdout F next\n"


def _read(log: bytes) -> list[bytes]:
    """As a kubelet does: the content of partial lines goes on in the next one."""
    lines = [b""]
    for line in log.split(b"\n")[:-1]:
        _stamp, _stream, tag, content = line.split(b" ", 3)
        lines[-1] += content
        if tag == b"F":
            lines.append(b"")
    return lines


@given(st.data())
def test_no_two_lines_are_glued_whatever_is_lost(data: st.DataObject) -> None:
    """Each line that is read has parts of one line that was written, in their order, and nothing of another."""
    writer, log = LineWriter("stdout"), b""
    lengths = st.sampled_from([0, 1, 5, LONGEST - 1, LONGEST, LONGEST + 1, 2 * LONGEST + 3])
    for number in range(data.draw(st.integers(1, 6))):
        line = bytes([ord("a") + number]) * data.draw(lengths) + b"\n"
        cut = data.draw(st.integers(0, len(line)))
        for read in (line[:cut], line[cut:]):
            out = writer.feed(read, _NOW) if read else b""
            written = data.draw(st.integers(0, len(out))) if data.draw(st.booleans()) else len(out)
            kept = written - writer.lost(out, written) if written < len(out) else written
            log += out[:kept]
            assert log == b"" or log.endswith(b"\n")
    assert all(len(set(line)) <= 1 for line in _read(log))


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
