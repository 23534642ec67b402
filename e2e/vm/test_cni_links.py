"""CNI plugins on a kernel with every kind of link: ipvlan, vlan, dummy, and VLANs of bridges."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e.vm.guest import Guest

pytestmark = pytest.mark.timeout(1800)

_TESTS = ("promises", "child_links", "bridge", "ptp", "tap", "host_device", "loopback")


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    made = Guest(tmp_path_factory.mktemp("vm"))
    yield made
    made.close()


def test_the_kernel_has_all_kinds_of_links(guest: Guest) -> None:
    """Otherwise the tests below would skip what they are here for."""
    guest.run("ip", "link", "add", "v0", "type", "bridge", "vlan_filtering", "1", seconds=30)
    for kind in (["dummy"], ["vlan", "id", "5"], ["ipvlan"], ["macvlan"]):
        parent = [] if kind == ["dummy"] else ["link", "v0"]
        guest.run("ip", "link", "add", *parent, "name", "v1", "type", *kind, seconds=30)
        guest.run("ip", "link", "del", "v1", seconds=30)
    guest.run("ip", "link", "del", "v0", seconds=30)


@pytest.mark.parametrize("name", _TESTS)
def test_plugins(guest: Guest, name: str) -> None:
    """tests/kernel/cni/test_main_*.py, of which no test skips for want of a kind of link."""
    path = f"tests/kernel/cni/test_main_{name}.py"
    output = guest.run("./run", "test", "-p", "no:cacheprovider", "-v", "-rs", path, seconds=900)
    assert " passed" in output
    assert "this kernel" not in output
