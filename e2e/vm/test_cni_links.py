"""CNI plugins where the kernel has every kind of link: what other machines skip for want of one is seen to pass."""

from __future__ import annotations

import pytest

from e2e.vm import lane
from e2e.vm.guest import Guest

pytestmark = pytest.mark.timeout(3600)
_FILES = tuple(
    f"tests/kernel/cni/test_{name}.py" for name in ("main_child_links", "main_promises", "main_host_device", "meta_vrf")
)
#: tables of which not every line is meant for every plugin, and the opposite of what this guest is
_BY_DESIGN = (
    "a mode of another plugin",
    "an option of another plugin",
    "a veth, which stands for the device here, dies with its namespace",
    "an ipvlan has its master's hardware address",
    "the alias of a device is its old name",
    "needs a kernel without VRFs",
)


def test_every_kind_of_link(guest: Guest) -> None:
    """Nothing is skipped because of the kernel, and each kind has tests that passed."""
    ran = lane.run(guest, *_FILES, seconds=3000)
    assert {reason for reason in ran.reasons() if not reason.startswith(_BY_DESIGN)} == set()
    for kind in ("ipvlan", "vlan", "macvlan", "dummy"):
        assert any(kind in test.partition("[")[2].rstrip("]").split("-") for test in ran.passed), kind
    assert any("test_meta_vrf::test_the_interface_keeps_addresses_and_routes" in test for test in ran.passed)
