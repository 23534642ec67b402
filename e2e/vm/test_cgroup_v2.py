"""Trivet on a machine with cgroup v2 and systemd: the driver's contract, what v2 alone has, and the demo."""

from __future__ import annotations

import pytest

from e2e.vm.guest import Guest

pytestmark = pytest.mark.timeout(1800)


def test_the_machine_has_the_unified_hierarchy_alone(guest: Guest) -> None:
    """Otherwise the tests below would say nothing about v2."""
    assert guest.run("stat", "-f", "-c", "%T", "/sys/fs/cgroup", seconds=30).strip() == "cgroup2fs"


def test_the_driver_keeps_its_contract(guest: Guest) -> None:
    """The suite that v1 passes elsewhere."""
    assert " passed" in guest.run("./run", "test", "-p", "no:cacheprovider", "tests/contract/test_cgroup.py", seconds=300)


def test_what_v2_alone_has(guest: Guest) -> None:
    """e2e/vm/inside.py, which only makes sense there."""
    assert " passed" in guest.run("./run", "test", "-p", "no:cacheprovider", "e2e/vm/inside.py", seconds=300)


@pytest.mark.parametrize(
    "lane", ["tests/kernel/container", "tests/kernel/cri/test_daemon.py", "tests/kernel/cri/test_user_namespace.py"]
)
def test_containers_are_the_same_there(guest: Guest, lane: str) -> None:
    """On an older kernel, with shared mounts as systemd makes them: what passes on this machine passes there."""
    assert " passed" in guest.run("./run", "test", "-p", "no:cacheprovider", lane, seconds=600)


def test_the_demo_works_whole(guest: Guest) -> None:
    """A pod with limits, its daemon killed and started again, and no cgroup left behind."""
    output = guest.run("./run", "demo", seconds=300)
    assert "Nothing is left behind" in output
    assert guest.run("find", "/sys/fs/cgroup", "-name", "trivet*", seconds=30) == ""
