"""vrf on the kernel: the interface is in its VRF with all its addresses and routes; skipped where the kernel has no VRFs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cni_plugins.meta import vrf
from runtime_core.errors import FailedPrecondition, NotFound, TrivetError
from runtime_core.network import rules
from runtime_core.network.link_messages import link_message
from runtime_core.testing.tools import require_program
from tests.kernel.cni.meta_pod import HOST, POD, Pod, connected_pod


def _has_vrfs(pod: Pod) -> bool:
    with pod.inside() as links:
        try:
            links.create("vrfprobe", vrf.vrf_message("vrfprobe", 7777))
        except OSError:
            return False
        return links.remove("vrfprobe")


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Pod]:
    with connected_pod(tmp_path) as pod:
        yield pod


@pytest.fixture
def pod(bare: Pod) -> Pod:
    if not _has_vrfs(bare):
        pytest.skip("needs a kernel with VRFs (CONFIG_NET_VRF)")
    return bare


def _routes(pod: Pod) -> set[tuple[int, str, str]]:
    with pod.inside() as links:
        link = links.find("eth0")
        assert link is not None
        listed = rules.routes(links.socket)
    return {
        (r.table, str(r.destination), r.gateway)
        for r in listed if r.index == link.index and r.is_unicast and not r.destination.is_link_local
    }  # fmt: skip


def _table(pod: Pod, name: str = "blue") -> int:
    with pod.inside() as links:
        link = links.find(name)
        return vrf.table_of(link) if link is not None else 0


def test_the_interface_keeps_addresses_and_routes(pod: Pod) -> None:
    """All routes are in the VRF's table, and the earlier plugin's CHECK finds them there."""
    previous = vrf.add(pod.request(pod.previous(), vrfname="blue", table=1001))
    wanted = {("10.9.0.0/24", ""), ("0.0.0.0/0", HOST[0]), ("fd09::/64", ""), ("::/0", HOST[1])}
    assert _routes(pod) == {(1001, *route) for route in wanted}
    with pod.inside() as links:
        assert {a.partition("/")[0] for a in links.addresses(pod.far().index)} >= set(POD)
    vrf.check(pod.request(previous, vrfname="blue", table=1001))
    assert pod.lacks() == set()


def test_the_vrf_goes_with_its_last_interface(pod: Pod) -> None:
    previous = vrf.add(pod.request(pod.previous(), vrfname="blue"))
    assert _table(pod) == 1
    with pod.inside() as links:
        other = links.create("other", link_message("ifb", "other", []))
        blue = links.find("blue")
        assert blue is not None
        links.set_master(other.index, blue.index)
    vrf.delete(pod.request(previous, vrfname="blue"))
    assert (_table(pod), pod.far().master) == (1, 0)
    with pod.inside() as links:
        links.remove("other")
    for _time in range(2):
        vrf.delete(pod.request(vrfname="blue"))
        assert _table(pod) == 0


def test_tables_that_are_in_use_are_left_alone(pod: Pod) -> None:
    require_program("nsenter", "util-linux")
    for command in (
        "ip rule add from 192.0.2.1 table 1",
        "ip route add blackhole 192.0.2.0/24 table 2",
        "ip link add red type vrf table 3",
    ):
        subprocess.run(["nsenter", f"--net={pod.path}", *command.split()], check=True)
    vrf.add(pod.request(pod.previous(), vrfname="blue"))
    assert _table(pod) == 4


@pytest.mark.parametrize(
    ("before", "config", "message"),
    [
        ("ip link add blue type vrf table 5", {"table": 6}, "^table: VRF blue has table 5 already, not 6"),
        ("ip link add blue type bridge", {}, "^vrfname: blue of the container is a bridge, not a VRF"),
        ("ip link add red type vrf table 5;ip link set eth0 master red", {}, "eth0 of the container has the master red already"),
    ],
)
def test_what_cannot_be_is_refused(pod: Pod, before: str, config: dict[str, Any], message: str) -> None:
    require_program("nsenter", "util-linux")
    for command in before.split(";"):
        subprocess.run(["nsenter", f"--net={pod.path}", *command.split()], check=True)
    master = pod.far().master
    with pytest.raises(FailedPrecondition, match=message):
        vrf.add(pod.request(pod.previous(), vrfname="blue", **config))
    assert pod.far().master == master


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("ip link del blue", "VRF blue of the container is missing or down"),
        ("ip link set blue down", "VRF blue of the container is missing or down"),
        ("ip link set eth0 nomaster", "eth0 of the container is not in VRF blue"),
        ("ip link del eth0", "the container has no interface eth0"),
    ],
)
def test_check_sees_what_changed(pod: Pod, change: str, message: str) -> None:
    require_program("nsenter", "util-linux")
    previous = vrf.add(pod.request(pod.previous(), vrfname="blue"))
    subprocess.run(["nsenter", f"--net={pod.path}", *change.split()], check=True)
    with pytest.raises(TrivetError, match=message):
        vrf.check(pod.request(previous, vrfname="blue"))
    vrf.delete(pod.request(previous, vrfname="blue"))
    assert _table(pod) == 0


def test_status_where_the_kernel_has_vrfs(pod: Pod) -> None:
    vrf.status(pod.request(vrfname="blue"))


def test_without_vrfs_nothing_changes(bare: Pod) -> None:
    """ADD and STATUS say what the kernel lacks, the latter as not available; DEL succeeds."""
    if _has_vrfs(bare):
        pytest.skip("needs a kernel without VRFs")
    with pytest.raises(TrivetError, match="^vrfname: making VRF blue with table 5: .*not supported"):
        vrf.add(bare.request(bare.previous(), vrfname="blue", table=5))
    with pytest.raises(NotFound, match="^the kernel has no links of kind vrf"):
        vrf.status(bare.request(vrfname="blue"))
    assert bare.lacks() == set()
    vrf.delete(bare.request(bare.previous(), vrfname="blue"))
