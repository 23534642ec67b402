"""What a back end's directory holds appears whole and disappears whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime_core.errors import FailedPrecondition, InvalidArgument
from runtime_core.volumes import tree
from runtime_core.volumes.layout import Layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(str(tmp_path / "root"), tree.remove)


def test_a_volume_of_which_the_making_fails_is_gone(layout: Layout) -> None:
    """With what was in it."""
    with pytest.raises(OSError, match="full"), layout.new_volume("v") as directory:
        Path(directory, "half").touch()
        raise OSError("full")
    assert layout.volumes() == set()
    assert os.listdir(os.path.join(layout.root, "trash")) == []


def test_snapshots_of_a_group_come_together(layout: Layout) -> None:
    """None is there before all are; a second time there is nothing to make."""
    with layout.new_snapshots(["s", "t"]) as made:
        assert layout.snapshots() == set() and set(made) == {"s", "t"}
        Path(made["s"], "image").touch()
    assert layout.snapshots() == {"s", "t"}
    assert Path(layout.snapshot("s"), "image").exists()
    with layout.new_snapshots(["s", "t"]) as made:
        assert made == {}


def test_of_a_group_that_fails_nothing_stays(layout: Layout) -> None:
    """Not even in the room where it was made."""
    with pytest.raises(OSError, match="full"), layout.new_snapshots(["s", "t"]):
        raise OSError("full")
    assert layout.snapshots() == set()
    assert os.listdir(os.path.join(layout.root, "groups")) == []


def test_a_group_half_of_which_exists(layout: Layout) -> None:
    """FailedPrecondition: the two halves were not one instant."""
    with layout.new_snapshots(["s"]):
        pass
    with pytest.raises(FailedPrecondition, match="s exists"), layout.new_snapshots(["s", "t"]):
        pass
    assert layout.snapshots() == {"s"}


def test_recovery_ends_what_was_begun(layout: Layout, tmp_path: Path) -> None:
    """A group that was complete is published, one that was not is gone, trash is emptied."""
    for path in ("groups/a/s", "groups/a/t", "groups/b.part/u", "trash/x/y"):
        os.makedirs(os.path.join(layout.root, path))
    os.makedirs(layout.snapshot("r"))
    layout.recover()
    assert layout.snapshots() == {"r", "s", "t"}
    assert os.listdir(os.path.join(layout.root, "groups")) == os.listdir(os.path.join(layout.root, "trash")) == []


@pytest.mark.parametrize("identifier", ["", "..", "a/b", "a\n", "A"])
def test_what_is_no_id_makes_no_path(layout: Layout, identifier: str) -> None:
    """InvalidArgument."""
    for path in (layout.volume, layout.snapshot):
        with pytest.raises(InvalidArgument):
            path(identifier)
