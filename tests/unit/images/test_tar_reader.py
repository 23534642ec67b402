"""Layers' archives: every format read, every damage named."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime_core.errors import DataLoss, ResourceExhausted, TrivetError
from runtime_core.images.tar_reader import entries, parse_pax


def _read(data: bytes) -> list[tuple[str, bytes, int]]:
    stream = io.BytesIO(data)

    def skip(size: int) -> None:
        stream.seek(size, io.SEEK_CUR)

    return [(entry.name, entry.kind, entry.size) for entry in entries(stream.read, skip)]


def _archive(format_: int, *members: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format_) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_come_through(format_: int) -> None:
    """By prefix, by GNU's long name, by a pax header."""
    name = "directory/" * 12 + "file"
    assert _read(_archive(format_, (name, b"abc"), ("b", b""))) == [(name, b"0", 3), ("b", b"0", 0)]


def test_a_wrong_checksum_is_named() -> None:
    """A flipped bit in a header is damage."""
    data = bytearray(_archive(tarfile.USTAR_FORMAT, ("a", b"x")))
    data[0] ^= 1
    with pytest.raises(DataLoss, match="checksum"):
        _read(bytes(data))


def test_an_archive_that_ends_early_is_damage() -> None:
    """Within a header."""
    with pytest.raises(DataLoss, match="ends"):
        _read(_archive(tarfile.USTAR_FORMAT, ("a", b""))[:300])


def test_an_enormous_extended_header_is_refused_before_it_is_read() -> None:
    """Its size is bounded."""
    member = tarfile.TarInfo("x")
    member.type, member.size = b"x", 1 << 30
    with pytest.raises(ResourceExhausted, match="extended header"):
        _read(member.tobuf(tarfile.USTAR_FORMAT))


@pytest.mark.parametrize("content", [b"x", b"5 a=", b"99 a=b\n", b"-5 a=b\n", b"0 a=b\n", b"7 abcd\n"])
def test_a_malformed_pax_header_is_damage(content: bytes) -> None:
    """Lengths that lie, records without '='."""
    with pytest.raises(DataLoss):
        parse_pax(content)


@given(st.binary(max_size=2048))
def test_noise_never_ends_in_anything_but_our_errors(noise: bytes) -> None:
    """Whatever comes, the reader says what is wrong."""
    try:
        _read(noise)
    except TrivetError:
        return
