"""The trivet.cgroup driver that fits the machine keeps its contract; e2e/vm has the other machine."""

from __future__ import annotations

import pytest

from runtime_core.cgroups.detect import detect_version
from runtime_core.interfaces.cgroup_manager import CgroupManager
from runtime_core.registry import installed, load_driver
from runtime_core.testing.cgroup_contract import CgroupContract


class TestCgroups(CgroupContract):
    @pytest.fixture
    def cgroups(self) -> CgroupManager:
        driver: CgroupManager = load_driver("cgroup", detect_version())()
        return driver


def test_every_driver_is_tested_somewhere() -> None:
    """Each is what some machine is detected as: this one, or the guest of e2e/vm."""
    assert [driver.name for driver in installed("cgroup")] == ["v1", "v2"]
