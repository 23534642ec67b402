"""File systems frozen together: one that hangs does not hold the others, a driver that died leaves none frozen."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from runtime_core.errors import DeadlineExceeded, Unavailable
from runtime_core.interfaces.volume import Volume
from runtime_core.kernel import filesystems
from runtime_core.testing.volume_environment import VolumeEnvironment
from runtime_core.volumes import freezing


def opener(mounted: Path) -> int:
    return os.open(mounted, os.O_RDONLY | os.O_DIRECTORY)


def test_one_that_hangs_does_not_hold_the_others(tmp_path: Path, loop: VolumeEnvironment, volume: Volume) -> None:
    """DeadlineExceeded names it; the others are thawed, and it is too once it comes back."""
    (tmp_path / "marks").mkdir()
    hangs = threading.Event()
    with loop.open(volume) as mounted, loop.open(loop.create_volume("w")) as other:

        def hang() -> int:
            hangs.wait()
            return opener(other)

        roots = {"v": ("", lambda: opener(mounted)), "w": ("", hang)}
        with (
            pytest.raises(DeadlineExceeded, match="w could not be frozen"),
            freezing.frozen(roots, str(tmp_path / "marks"), 3),
        ):
            pytest.fail("the block is not entered")
        loop.write(mounted, b"thawed")
        hangs.set()
        for thread in threading.enumerate():
            if thread.name == "freeze":
                thread.join(10)
        loop.write(other, b"thawed")
    assert os.listdir(tmp_path / "marks") == []


def test_a_frozen_file_system_stands_still(tmp_path: Path, loop: VolumeEnvironment, volume: Volume) -> None:
    """Within the block, and not after it; frozen by somebody else it is Unavailable, and stays theirs."""
    (tmp_path / "marks").mkdir()
    with loop.open(volume) as mounted:
        roots = {"v": ("", lambda: opener(mounted))}
        with freezing.frozen(roots, str(tmp_path / "marks"), 10):
            assert os.listdir(tmp_path / "marks") == ["v"]
            written = threading.Event()
            thread = threading.Thread(target=lambda: (loop.write(mounted, b"x"), written.set()))
            thread.start()
            assert not written.wait(0.2)
        thread.join(10)
        assert written.is_set()
        root = opener(mounted)
        filesystems.freeze(root)
        with pytest.raises(Unavailable, match="somebody else"), freezing.frozen(roots, str(tmp_path / "marks"), 10):
            pytest.fail("the block is not entered")
        assert filesystems.unfreeze(root)
        os.close(root)


def test_what_a_dead_driver_left_frozen_is_thawed(loop: VolumeEnvironment, volume: Volume) -> None:
    """By the next one, from its mark, though it sees no mount of it."""
    with loop.open(volume) as mounted:
        root = opener(mounted)
        device = os.minor(os.stat(mounted).st_dev)
        Path(loop.targets.parent, "root", "frozen", "v").write_text(f"{device} ext4")
        filesystems.freeze(root)
        loop.make()
        assert not filesystems.unfreeze(root), "it was thawed"
        os.close(root)
    for torn in ("", "7", "x ext4", "100000 ext4"):
        mark = Path(loop.targets.parent, "root", "frozen", "v")
        mark.write_text(torn)
        loop.make()
        assert not mark.exists()
