"""Changed blocks: exactly those that differ, over whatever files and holes."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime_core.interfaces.volume import Extent
from runtime_core.volumes import deltas
from runtime_core.volumes.deltas import BLOCK

_BLOCKS = 12
#: per block: a hole, or what it is filled with; b"\0" is data that reads as a hole does
_content = st.lists(st.sampled_from([None, b"\0", b"a", b"b"]), min_size=_BLOCKS, max_size=_BLOCKS)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_content, _content, st.integers(0, _BLOCKS), st.integers(0, _BLOCKS * BLOCK))
def test_changed(tmp_path: Path, old: list[bytes | None], new: list[bytes | None], shorter: int, start: int) -> None:
    """In order, aligned, joined; from `start` on; a base that is shorter reads as zeros past its end."""
    old = old[:shorter]
    base, target = write(tmp_path / "base", old), write(tmp_path / "target", new)
    expected = set()
    for index, block in enumerate(new):
        before = (old[index] if index < len(old) else None) or b"\0"
        if (block or b"\0") != before:
            expected.add(index)
    found = list(deltas.changed(base, target, start))
    assert blocks(found) == {index for index in expected if (index + 1) * BLOCK > start}
    check_form(found, start)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_content, st.integers(0, _BLOCKS * BLOCK))
def test_allocated(tmp_path: Path, content: list[bytes | None], start: int) -> None:
    """All that holds data, from `start` on."""
    found = list(deltas.allocated(write(tmp_path / "file", content), start))
    assert blocks(found) >= {index for index, block in enumerate(content) if block and (index + 1) * BLOCK > start}
    check_form(found, start)


def write(path: Path, content: list[bytes | None]) -> str:
    with open(path, "wb") as file:
        file.truncate(len(content) * BLOCK)
        for index, block in enumerate(content):
            if block:
                file.seek(index * BLOCK)
                file.write(block * BLOCK)
    return str(path)


def blocks(extents: list[Extent]) -> set[int]:
    return {index for one in extents for index in range(one.offset // BLOCK, -(-(one.offset + one.length) // BLOCK))}


def check_form(extents: list[Extent], start: int) -> None:
    for one in extents:
        assert one.length > 0
        assert one.offset % BLOCK == 0 or one.offset == start
        assert (one.offset + one.length) % BLOCK == 0
        assert one.offset >= start
    for one, following in zip(extents, extents[1:], strict=False):
        assert one.offset + one.length < following.offset
