"""Sizes: rounded up, never beyond a limit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime_core.errors import OutOfRange
from runtime_core.volumes import sizes
from runtime_core.volumes.sizes import MIB


@pytest.mark.parametrize(
    ("required", "limit", "smallest", "size"),
    [
        (0, 0, MIB, MIB),
        (1, 0, MIB, MIB),
        (MIB + 1, 0, MIB, 2 * MIB),
        (MIB + 1, MIB + 5000, MIB, MIB + 4096),
        (5, 0, 300 * MIB, 300 * MIB),
        (10 * MIB, 10 * MIB, MIB, 10 * MIB),
    ],
)
def test_rounded(required: int, limit: int, smallest: int, size: int) -> None:
    """To whole MiB, or down to the limit where that still holds what is required."""
    assert sizes.round_up(required, limit, smallest) == size


@pytest.mark.parametrize(
    ("required", "limit", "smallest"), [(MIB, MIB - 1, MIB), (1, MIB, 8 * MIB), (MIB + 1, MIB + 2, MIB), (1 << 63, 0, MIB)]
)
def test_out_of_range(required: int, limit: int, smallest: int) -> None:
    """OutOfRange names the bound."""
    with pytest.raises(OutOfRange, match="capacity_range"):
        sizes.round_up(required, limit, smallest)


@given(st.integers(0, 1 << 50), st.integers(0, 1 << 50))
def test_between_what_is_required_and_the_limit(required: int, limit: int) -> None:
    """And a multiple of 4 KiB, always."""
    try:
        size = sizes.round_up(required, limit, MIB)
    except OutOfRange:
        return
    assert size >= max(required, MIB) and size % 4096 == 0
    assert not limit or size <= limit
