"""The plugins macvlan, ipvlan, vlan and dummy: each option, with traffic; those that this kernel lacks are skipped by name."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime_core.errors import FailedPrecondition, InvalidArgument, NotFound
from runtime_core.network.links import Link
from tests.kernel.cni import main_node
from tests.kernel.cni.main_node import (
    Node,
    add_pair,
    addresses_of,
    has_kind,
    names,
    needs_kind,
    on,
    reaches,
    run,
    sysctl,
    tcp,
    udp,
)

_KINDS = ("macvlan", "ipvlan", "vlan")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """up0 is the node's uplink, with up1 at its other end; eth9 has no default route."""
    with main_node.made(tmp_path) as node:
        add_pair("eth9", "eth8")
        add_pair("up0", "up1")
        run("ip", "address", "add", "198.51.100.1/24", "dev", "up0")
        run("ip", "route", "add", "default", "via", "198.51.100.2")
        yield node


@pytest.fixture(params=_KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    needs_kind(request.param)
    return str(request.param)


def _config(node: Node, kind: str, **more: Any) -> dict[str, Any]:
    return node.config(kind, **{"master": "up0", **({"vlanId": 5} if kind == "vlan" else {}), **more})


def _inside(pod: Path) -> Link:
    with on(pod) as links:
        found = links.find("eth0")
    assert found is not None
    return found


def _index(name: str, place: Path | None = None) -> int:
    with on(place) as links:
        found = links.find(name)
    assert found is not None
    return found.index


@pytest.mark.parametrize("options", [{}, {"mode": "bridge"}, {"mode": "l2"}, {"mode": "l3"}, {"mode": "l3s"}, {"vlanId": 6}])
def test_pods_reach_each_other(node: Node, kind: str, options: dict[str, Any]) -> None:
    """TCP and UDP, IPv4 and IPv6, in each mode that promises it."""
    if ({"macvlan": "bridge", "ipvlan": "l", "vlan": "-"}[kind]) not in options.get("mode", "-bridge l"):
        pytest.skip("a mode of another plugin")
    if "vlanId" in options and kind != "vlan":
        pytest.skip("an option of another plugin")
    one, two = node.pod("one"), node.pod("two")
    first = _config(node, kind, **options)
    second = {**first, "master": "up1"} if kind == "vlan" else first
    node.call("ADD", first, one)
    addresses = addresses_of(node.call("ADD", second, two, container_id="c2"))
    reaches(one, two, addresses)


@pytest.mark.parametrize(("mode", "number"), [("private", 1), ("vepa", 2), ("bridge", 4), ("passthru", 8)])
def test_macvlan_modes(node: Node, mode: str, number: int) -> None:
    """In the kernel as in the configuration; CHECK sees another one."""
    result, config = node.attach(_config(node, "macvlan", mode=mode), pod := node.pod())
    assert struct.unpack("=I", _inside(pod).data[1])[0] == number
    node.call("CHECK", config, pod)
    other = "private" if mode != "private" else "vepa"
    with pytest.raises(FailedPrecondition, match=f"mode: eth0 of the container is not in mode {other}"):
        node.call("CHECK", {**config, "mode": other}, pod)
    assert result["interfaces"][0]["mac"] == _inside(pod).mac


def test_macvlan_private_pods_do_not_reach_each_other(node: Node) -> None:
    """Which is what the mode is for."""
    one, two = node.pod("one"), node.pod("two")
    config = _config(node, "macvlan", mode="private")
    node.call("ADD", config, one)
    for address in addresses_of(node.call("ADD", config, two, container_id="c2")):
        with pytest.raises(TimeoutError):
            udp(one, two, address, seconds=0.3)


def test_macvlan_reaches_what_is_behind_its_master(node: Node) -> None:
    """The other end of the uplink, from an address of its own."""
    result = node.call("ADD", _config(node, "macvlan"), pod := node.pod())
    outside = node.pod("outside")
    run("ip", "link", "set", "up1", "netns", str(outside))
    with on(outside) as links:
        far = links.find("up1")
        assert far is not None
        links.configure(far.index, ["10.77.0.200/24", "fd77::200/64"], [])
    assert tcp(pod, outside, "10.77.0.200") == addresses_of(result)[0]
    assert udp(pod, outside, "fd77::200") == addresses_of(result)[1]


@pytest.mark.parametrize(
    ("config", "args", "mac"),
    [
        ({"mac": "02:00:00:00:00:01"}, {}, "02:00:00:00:00:01"),
        ({"mac": "02:00:00:00:00:01"}, {"MAC": "02:00:00:00:00:02"}, "02:00:00:00:00:02"),
        ({"runtimeConfig": {"mac": "02:00:00:00:00:03"}}, {"MAC": "02:00:00:00:00:02"}, "02:00:00:00:00:03"),
    ],
)
def test_macvlan_mac(node: Node, config: dict[str, Any], args: dict[str, str], mac: str) -> None:
    """From each place where it may stand."""
    result = node.call("ADD", _config(node, "macvlan", **config), pod := node.pod(), args=args)
    assert (_inside(pod).mac, result["interfaces"][0]["mac"]) == (mac, mac)


def test_macvlan_bcqueuelen(node: Node) -> None:
    """The kernel has it as it was asked for."""
    node.call("ADD", _config(node, "macvlan", bcqueuelen=2000), pod := node.pod())
    assert struct.unpack("=I", _inside(pod).data[7])[0] == 2000


def test_the_master_is_the_default_routes_link(node: Node) -> None:
    """Where none is named; without such a route the error names the field."""
    needs_kind("macvlan")
    _result, config = node.attach(_config(node, "macvlan", master=""), pod := node.pod())
    assert _inside(pod).parent == _index("up0")
    node.call("CHECK", config, pod)
    node.call("DEL", config, pod)
    run("ip", "route", "del", "default")
    for verb in ("STATUS", "ADD"):
        with pytest.raises(NotFound, match="master: there is no default route on this node"):
            node.call(verb, _config(node, "macvlan", master=""), pod)
    run("ip", "-6", "route", "add", "default", "dev", "eth9")
    node.call("ADD", _config(node, "macvlan", master=""), pod)
    assert _inside(pod).parent == _index("eth9")


def test_mtu(node: Node, kind: str) -> None:
    """As asked for; more than the master has is refused by name."""
    result = node.call("ADD", _config(node, kind, mtu=1400), pod := node.pod())
    assert (_inside(pod).mtu, result["interfaces"][0]["mtu"]) == (1400, 1400)
    for verb in ("STATUS", "ADD"):
        with pytest.raises(InvalidArgument, match="mtu: 1501 is more than the 1500 of up0"):
            node.call(verb, _config(node, kind, mtu=1501), node.pod(verb))


def test_link_in_container(node: Node, kind: str) -> None:
    """The master is one of the container's own links; CHECK and DEL know it, STATUS cannot ask."""
    pod = node.pod()
    add_pair("in0", "in1", pod)
    config = _config(node, kind, master="in0", linkInContainer=True)
    node.call("STATUS", config)
    _result, config = node.attach(config, pod)
    assert _inside(pod).parent == _index("in0", pod)
    node.call("CHECK", config, pod)
    node.call("DEL", config, pod)
    assert names(pod) == {"in0", "in1"}
    with pytest.raises(NotFound, match="master: there is no up0 in the container"):
        node.call("ADD", _config(node, kind, linkInContainer=True), pod)
    assert names(pod) == {"in0", "in1"}


def test_a_master_that_is_missing(node: Node, kind: str) -> None:
    """STATUS says it with the specification's code for it, ADD leaves nothing, DEL does not care."""
    pod = node.pod()
    _result, config = node.attach(_config(node, kind), pod)
    run("ip", "link", "del", "up0")
    for verb in ("STATUS", "CHECK", "ADD"):
        with pytest.raises(NotFound):
            node.call(verb, config, pod)
    with pytest.raises(NotFound, match="master: there is no up0 on this node"):
        node.call("STATUS", config)
    node.call("DEL", config, pod)
    assert (names(pod), node.reserved()) == (set(), [])


def test_neighbours_are_told(node: Node) -> None:
    """Settings as the reference plugin has them."""
    node.call("ADD", _config(node, "macvlan"), pod := node.pod())
    assert sysctl(pod, "ipv4/conf/eth0/arp_notify") == "1"
    assert sysctl(pod, "ipv6/conf/eth0/ndisc_notify") == "1"


@pytest.mark.parametrize("plugin", ["macvlan", "vlan"])
def test_without_ipam(node: Node, plugin: str) -> None:
    """A link that is up and has no address."""
    needs_kind(plugin)
    result, config = node.attach(_config(node, plugin, ipam=None), pod := node.pod())
    assert "ips" not in result
    assert _inside(pod).is_up
    node.call("CHECK", config, pod)
    node.call("DEL", config, pod)
    assert names(pod) == set()


def test_ipvlan_in_a_chain(node: Node) -> None:
    """The master is the one interface of prevResult, and so are the addresses without ipam."""
    needs_kind("ipvlan")
    previous = {"cniVersion": "1.1.0", "interfaces": [{"name": "eth9"}], "ips": [{"address": "10.77.0.50/24"}]}
    config = node.config("ipvlan", ipam=None, prevResult=previous)
    result = node.call("ADD", config, pod := node.pod())
    assert [ip["address"] for ip in result["ips"]] == ["10.77.0.50/24"]
    assert [one["name"] for one in result["interfaces"]] == ["eth0"]
    assert _inside(pod).parent == _index("eth9")
    node.call("CHECK", {**config, "prevResult": result}, pod)
    node.call("DEL", {**config, "prevResult": result}, pod)
    assert names(pod) == set()


@pytest.mark.parametrize("mode", ["l2", "l3", "l3s"])
def test_ipvlan_modes(node: Node, mode: str) -> None:
    """CHECK sees another one."""
    needs_kind("ipvlan")
    _result, config = node.attach(_config(node, "ipvlan", mode=mode), pod := node.pod())
    node.call("CHECK", config, pod)
    with pytest.raises(FailedPrecondition, match="mode"):
        node.call("CHECK", {**config, "mode": "l3" if mode != "l3" else "l2"}, pod)


def test_vlan_id(node: Node) -> None:
    """CHECK sees another one; pods of two VLANs of one link do not reach each other."""
    needs_kind("vlan")
    one, two = node.pod("one"), node.pod("two")
    _result, config = node.attach(_config(node, "vlan", vlanId=5), one)
    with pytest.raises(FailedPrecondition, match="vlanId: eth0 of the container is of VLAN 5, not 6"):
        node.call("CHECK", {**config, "vlanId": 6}, one)
    result = node.call("ADD", {**_config(node, "vlan", vlanId=6), "master": "up1"}, two, container_id="c2")
    for address in addresses_of(result):
        with pytest.raises((TimeoutError, OSError)):
            udp(one, two, address, seconds=0.3)


def test_dummy_answers_at_its_addresses(node: Node) -> None:
    """From inside; without ipam it is refused."""
    needs_kind("dummy")
    result = node.call("ADD", node.config("dummy"), pod := node.pod())
    reaches(pod, pod, addresses_of(result))
    with pytest.raises(InvalidArgument, match="ipam"):
        node.call("ADD", node.config("dummy", ipam=None), node.pod("other"))


@pytest.mark.parametrize(
    ("plugin", "change", "message"),
    [
        ("macvlan", {"mode": "l2"}, "mode: 'l2' is not one of bridge, private, vepa, passthru"),
        ("macvlan", {"bcqueuelen": -1}, "bcqueuelen"),
        ("macvlan", {"master": "a/b"}, "master"),
        ("macvlan", {"master": 5}, "master"),
        ("macvlan", {"linkInContainer": "yes"}, "linkInContainer"),
        ("macvlan", {"mac": "02:00:00:00:00"}, "mac"),
        ("ipvlan", {"mode": "bridge"}, "mode: 'bridge' is not one of l2, l3, l3s"),
        ("ipvlan", {"mtu": -5}, "mtu"),
        ("vlan", {"vlanId": 4095}, "vlanId"),
        ("vlan", {"vlanId": "5"}, "vlanId"),
        ("vlan", {"master": None}, "master"),
    ],
)
@pytest.mark.parametrize("verb", ["STATUS", "ADD"])
def test_what_is_wrong_is_named(node: Node, verb: str, plugin: str, change: dict[str, Any], message: str) -> None:
    """Before anything is made."""
    pod = node.pod()
    with pytest.raises(InvalidArgument, match=message):
        node.call(verb, _config(node, plugin, **change), pod)
    assert names(pod) == set()


@pytest.mark.parametrize(
    "previous", [{"interfaces": []}, {"interfaces": [{"name": "a"}, {"name": "b"}]}, {"interfaces": [{"mac": "x"}]}]
)
def test_a_chain_that_names_no_master(node: Node, previous: dict[str, Any]) -> None:
    """ipvlan says which field it misses."""
    config = node.config("ipvlan", prevResult={"cniVersion": "1.1.0", **previous})
    with pytest.raises(InvalidArgument, match="master"):
        node.call("ADD", config, node.pod())


@pytest.mark.parametrize("plugin", ["ipvlan", "vlan", "dummy"])
def test_a_kernel_without_such_links(node: Node, plugin: str) -> None:
    """Where it has none, the error says so and nothing is left; where it has them, ADD works."""
    pod = node.pod()
    if not has_kind(plugin):
        with pytest.raises(FailedPrecondition, match=f"this kernel has no {plugin}"):
            node.call("ADD", _config(node, plugin), pod)
        assert (names(pod), node.reserved()) == (set(), [])
    else:
        node.call("ADD", _config(node, plugin), pod)
        assert names(pod) == {"eth0"}
