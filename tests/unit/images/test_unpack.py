"""Layers' compression: every form read, in pieces of a bounded size, every damage named."""

from __future__ import annotations

import gzip
import io
import os

import pytest
import zstandard

from runtime_core.errors import DataLoss
from runtime_core.images.unpack import decompress

_TEXT = os.urandom(300_000) + bytes(5 << 20)
_MEMBERS = gzip.compress(_TEXT[:1000]) + gzip.compress(b"") + gzip.compress(_TEXT[1000:])
_FRAMES = zstandard.compress(_TEXT[:1000]) + zstandard.compress(_TEXT[1000:])


@pytest.mark.parametrize("blob", [_TEXT, gzip.compress(_TEXT), _MEMBERS, zstandard.compress(_TEXT), _FRAMES])
def test_every_form_is_told_by_its_first_bytes(blob: bytes) -> None:
    """Plain, gzip, zstd; gzip of several members and zstd of several frames."""
    pieces = list(decompress(io.BytesIO(blob)))
    assert b"".join(pieces) == _TEXT
    assert max(map(len, pieces)) <= 1 << 20


@pytest.mark.parametrize("blob", [b"", b"x", b"\x1f"])
def test_what_is_too_short_to_be_compressed_is_plain(blob: bytes) -> None:
    """An empty file as well."""
    assert b"".join(decompress(io.BytesIO(blob))) == blob


@pytest.mark.parametrize("cut", [1, 8, 100, 200_000])
@pytest.mark.parametrize("blob", [gzip.compress(_TEXT), _MEMBERS])
def test_a_gzip_stream_that_ends_early_is_damage(blob: bytes, cut: int) -> None:
    """Within its trailer or its data."""
    with pytest.raises(DataLoss, match="ends early"):
        list(decompress(io.BytesIO(blob[:-cut])))


def test_a_zstd_frame_that_wants_too_much_memory_is_refused() -> None:
    """By the window that its header asks for."""
    parameters = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=True)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()  # of unknown size: the window counts
    blob = stream.compress(b"x" * 1000) + stream.flush()
    with pytest.raises(DataLoss, match="zstd stream is damaged"):
        list(decompress(io.BytesIO(blob)))
