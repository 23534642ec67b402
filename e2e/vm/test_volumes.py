"""Volumes where the kernel lets its administrator do everything: growth in use, quotas by project, and udev beside them."""

from __future__ import annotations

import pytest

from e2e.vm import lane
from e2e.vm.guest import Guest

pytestmark = pytest.mark.timeout(3600)
#: what a back end does not have, on any kernel
_BY_DESIGN = ("this back end has no", "this back end does not announce", "these parameters ask for volumes without a limit")


def test_udev_looks_at_each_device(guest: Guest) -> None:
    """Otherwise the tests below would say nothing about a prober that holds loop devices open."""
    assert guest.run("systemctl", "is-active", "systemd-udevd.service", seconds=60).strip() == "active"


def test_a_file_system_grows_while_it_is_used(guest: Guest) -> None:
    """e2e/vm/inside_volumes.py, which only makes sense there."""
    assert not lane.run(guest, "e2e/vm/inside_volumes.py", seconds=600).skipped


def test_back_ends_keep_their_contract(guest: Guest) -> None:
    """Project quotas of ext4 and of xfs are on, and the contract holds as it does elsewhere.

    Not run: what no kernel changes, and the hundreds of deaths at a step, of which every other lane has its share.
    """
    ran = lane.run(guest, "tests/contract/test_volume.py", "-k", "not killed and not hostile", seconds=2400)
    assert {reason for reason in ran.reasons() if not reason.startswith(_BY_DESIGN)} == set()
    for case in ("directory-ext4-quota", "directory-xfs-quota", "loop-ext4", "loop-xfs-ext4", "loop-xfs-xfs", "btrfs-btrfs"):
        for name in ("test_a_mounted_volume_holds_its_size_and_not_more", "test_expansion_keeps_the_data"):
            assert any(f"::{name}[" in test and test.endswith(f"{case}]") for test in ran.passed), (name, case)


@pytest.mark.parametrize("directory", ["tests/kernel/volumes", "tests/kernel/csi"])
def test_volumes_are_the_same_there(guest: Guest, directory: str) -> None:
    """With udev, which this machine may lack; no kernel feature is missed."""
    assert lane.run(guest, directory, seconds=2400).reasons() == set()
