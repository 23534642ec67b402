"""Every installed trivet.snapshotter driver keeps its contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from runtime_core.interfaces.snapshotter import Snapshotter
from runtime_core.registry import installed, load_driver
from runtime_core.testing.snapshotter_contract import SnapshotterContract


@pytest.mark.parametrize("name", [driver.name for driver in installed("snapshotter")])
class TestSnapshotters(SnapshotterContract):
    @pytest.fixture
    def make_snapshotter(self, tmp_path: Path, name: str) -> Callable[[], Snapshotter]:
        return lambda: load_driver("snapshotter", name)(tmp_path / name)
