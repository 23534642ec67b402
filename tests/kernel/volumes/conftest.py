"""A mount namespace for each test, and a loop back end in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from plugins.volumes.loop import LoopBackend
from runtime_core.interfaces.volume import Volume
from runtime_core.kernel import loop_device, mounts
from runtime_core.testing.volume_environment import VolumeEnvironment, bound_loops, wait_until
from runtime_core.testing.volume_file_systems import file_system_directory

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path: Path) -> Iterator[None]:
    with file_system_directory(tmp_path, ""):
        yield
        mounts.unmount_below(str(tmp_path))
        try:
            wait_until(lambda: not bound_loops(tmp_path), "a loop device is left")
        finally:
            for number in bound_loops(tmp_path):
                loop_device.detach(number)


@pytest.fixture
def loop(tmp_path: Path) -> VolumeEnvironment:
    return world(tmp_path, lambda: LoopBackend(str(tmp_path / "root"), {}), "ext4")


def world(tmp_path: Path, make: Callable[[], LoopBackend], fs_type: str) -> VolumeEnvironment:
    (tmp_path / "targets").mkdir()
    return VolumeEnvironment(make, make(), tmp_path / "targets", fs_type, {}, 32 * MIB)


@pytest.fixture
def volume(loop: VolumeEnvironment) -> Volume:
    return loop.create_volume("v")
