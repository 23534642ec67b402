"""The plugin bridge: each of its options, with traffic where the option promises any."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime_core.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from runtime_core.network import bridge_vlans
from runtime_core.network.links import Link
from runtime_core.testing.tools import require_program
from tests.kernel.cni import main_node
from tests.kernel.cni.main_node import (
    Node,
    add_pair,
    addresses_of,
    answers,
    names,
    needs_bridge_vlans,
    on,
    reaches,
    run,
    sysctl,
    tcp,
    udp,
    unsettled,
    uplink,
)

_BRIDGE = "cnit0"
_GATEWAYS = ["10.77.0.1", "fd77::1"]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with main_node.made(tmp_path) as node:
        yield node


def _config(node: Node, **more: Any) -> dict[str, Any]:
    return node.config("bridge", **{"bridge": _BRIDGE, "isGateway": True, **more})


def _two(node: Node, first: dict[str, Any], second: dict[str, Any] | None = None) -> tuple[Path, Path, list[str]]:
    """Two pods, and the addresses of the second."""
    one, two = node.pod("one"), node.pod("two")
    node.call("ADD", first, one, container_id="c1")
    result = node.call("ADD", second or first, two, container_id="c2")
    return one, two, addresses_of(result)


def _port(node: Node, result: dict[str, Any]) -> Link:
    with on(None) as links:
        found = links.find(result["interfaces"][1]["name"])
    assert found is not None
    return found


def test_pods_reach_each_other_and_the_node(node: Node) -> None:
    """TCP and UDP, IPv4 and IPv6, both ways, at once after ADD."""
    one, two, addresses = _two(node, _config(node))
    reaches(one, two, addresses)
    reaches(one, None, _GATEWAYS)
    reaches(None, two, addresses)


def test_the_addresses_answer_when_add_ends(node: Node) -> None:
    """None is tentative, and each one's multicast group is joined, by which neighbours ask for it."""
    for number in range(6):
        pod = node.pod(f"pod{number}")
        result = node.call("ADD", _config(node), pod, container_id=f"c{number}")
        assert unsettled(pod, "eth0") == ([], [])
        assert answers(pod, "eth0", addresses_of(result)[1])


def test_is_default_gateway(node: Node) -> None:
    """A pod reaches what is behind the node by it; without it there is no such route, and nothing is forwarded."""
    outside = node.pod("outside")
    uplink(outside)
    one = node.pod("one")
    result = node.call("ADD", _config(node, isDefaultGateway=True), one)
    assert {route["dst"] for route in result["routes"]} == {"0.0.0.0/0", "::/0"}
    assert tcp(one, outside, "198.51.100.2") == "10.77.0.2"
    assert tcp(one, outside, "2001:db8::2") == "fd77::2"
    two = node.pod("two")
    assert "routes" not in node.call("ADD", _config(node), two, container_id="c2")
    with pytest.raises(OSError):
        tcp(two, outside, "198.51.100.2")


@pytest.mark.parametrize("backend", [None, "nftables", "iptables"])
def test_ip_masq(node: Node, backend: str | None) -> None:
    """What leaves comes from the node, what stays does not; CHECK sees the rule gone, DEL and GC take it away."""
    if backend == "iptables":
        require_program("iptables", "iptables")
    outside = node.pod("outside")
    uplink(outside)
    more = {"ipMasqBackend": backend} if backend else {}
    one, two = node.pod("one"), node.pod("two")
    config = _config(node, isDefaultGateway=True, ipMasq=True, **more)
    _result, with_result = node.attach(config, one)
    addresses = addresses_of(node.call("ADD", config, two, container_id="c2"))
    assert tcp(one, outside, "198.51.100.2") == "198.51.100.1"
    assert tcp(one, outside, "2001:db8::2") == "2001:db8::1"
    assert tcp(one, two, addresses[0]) == "10.77.0.2"
    node.call("CHECK", with_result, one)
    valid = [{"containerID": "c1", "ifname": "eth0"}]
    node.call("GC", {**config, "cni.dev/valid-attachments": valid})
    with pytest.raises((FailedPrecondition, NotFound)):
        node.call("CHECK", {**config, "prevResult": {**with_result["prevResult"]}}, two, container_id="c2")
    node.call("CHECK", with_result, one)
    node.call("DEL", config, "")  # neither namespace nor result
    with pytest.raises((FailedPrecondition, NotFound)):
        node.call("CHECK", with_result, one)


def test_hairpin(node: Node) -> None:
    """A frame goes back out of the port by which it came."""
    one = node.pod("one")
    result, config = node.attach(_config(node, hairpinMode=True), one)
    port = result["interfaces"][1]["name"]
    assert "hairpin on" in run("bridge", "-d", "link", "show", "dev", port)
    node.call("CHECK", config, one)
    run("bridge", "link", "set", "dev", port, "hairpin", "off")
    with pytest.raises(FailedPrecondition, match="hairpinMode"):
        node.call("CHECK", config, one)


def test_promiscuous_mode(node: Node) -> None:
    """Of the bridge; with hairpinMode it is refused."""
    _result, config = node.attach(_config(node, promiscMode=True), pod := node.pod())
    assert "PROMISC" in run("ip", "link", "show", _BRIDGE)
    node.call("CHECK", config, pod)
    run("ip", "link", "set", _BRIDGE, "promisc", "off")
    with pytest.raises(FailedPrecondition, match="promiscMode"):
        node.call("CHECK", config, pod)
    with pytest.raises(InvalidArgument, match="promiscMode"):
        node.call("STATUS", _config(node, promiscMode=True, hairpinMode=True))


def test_port_isolation(node: Node) -> None:
    """Isolated pods reach the node and not each other; one that is not isolated reaches them."""
    one, two, addresses = _two(node, _config(node, portIsolation=True))
    reaches(one, None, _GATEWAYS)
    for address in addresses:
        with pytest.raises(TimeoutError):
            udp(one, two, address, seconds=0.3)
    open_ = node.pod("open")
    node.call("ADD", _config(node), open_, container_id="c3")
    reaches(open_, two, addresses)


def test_mtu(node: Node) -> None:
    """Of the bridge, when it is made, and of both ends."""
    result = node.call("ADD", _config(node, mtu=1400), pod := node.pod())
    assert [one["mtu"] for one in result["interfaces"]] == [1400, 1400, 1400]
    with on(pod) as links:
        link = links.find("eth0")
    assert link is not None and link.mtu == 1400


@pytest.mark.parametrize(
    ("config", "args", "mac"),
    [
        ({"mac": "02:00:00:00:00:01"}, {}, "02:00:00:00:00:01"),
        ({"mac": "02:00:00:00:00:01"}, {"MAC": "02:00:00:00:00:02"}, "02:00:00:00:00:02"),
        ({"args": {"cni": {"mac": "02:00:00:00:00:03"}}}, {"MAC": "02:00:00:00:00:02"}, "02:00:00:00:00:03"),
        ({"args": {"cni": {"mac": "02:00:00:00:00:03"}}, "runtimeConfig": {"mac": "02-00-00-00-00-AA"}}, {}, "02:00:00:00:00:aa"),
    ],
)
def test_mac(node: Node, config: dict[str, Any], args: dict[str, str], mac: str) -> None:
    """From each place where it may stand, in the order of the reference plugin."""
    result = node.call("ADD", _config(node, **config), pod := node.pod(), args=args)
    assert result["interfaces"][2]["mac"] == mac
    with on(pod) as links:
        link = links.find("eth0")
    assert link is not None and link.mac == mac


@pytest.mark.parametrize("force", [False, True])
def test_force_address(node: Node, force: bool) -> None:
    """A bridge with another address of the network is refused, or gets the right one alone; another IPv6 one stays."""
    pod = node.pod()
    with on(None) as links:
        links.add_bridge(_BRIDGE)
        bridge = links.find(_BRIDGE)
        assert bridge is not None
        links.configure(bridge.index, ["192.0.2.1/24", "fd77::99/64", "fd99::1/64"], [])
    config = _config(node, forceAddress=force)
    if not force:
        with pytest.raises(FailedPrecondition, match="forceAddress"):
            node.call("ADD", config, pod)
        assert (names(), names(pod), node.reserved()) == ({_BRIDGE}, set(), [])
        return
    node.call("ADD", config, pod)
    with on(None) as links:
        present = {one for one in links.addresses(bridge.index) if not one.startswith("fe80")}
    assert present == {"10.77.0.1/24", "fd77::1/64", "fd99::1/64"}
    reaches(pod, None, _GATEWAYS)


def test_the_gateway_is_the_first_address_where_ipam_names_none(node: Node) -> None:
    """As with the plugin static."""
    config = _config(node, isDefaultGateway=True, ipam={"type": "static", "addresses": [{"address": "10.77.0.9/24"}]})
    result = node.call("ADD", config, pod := node.pod())
    assert result["ips"][0]["gateway"] == "10.77.0.1"
    reaches(pod, None, ["10.77.0.1"])


def test_disable_container_interface(node: Node) -> None:
    """The container's end stays down, without addresses; ipam is refused with it."""
    config = _config(node, disableContainerInterface=True, ipam=None)
    result, config = node.attach(config, pod := node.pod())
    with on(pod) as links:
        link = links.find("eth0")
        assert link is not None and not link.is_up
        assert links.addresses(link.index) == []
    assert "ips" not in result
    node.call("CHECK", config, pod)
    with pytest.raises(InvalidArgument, match="disableContainerInterface"):
        node.call("ADD", _config(node, disableContainerInterface=True), pod)


def test_enabledad(node: Node) -> None:
    """ADD ends when nobody else was found to have the address; when somebody has it, it fails and leaves nothing."""
    first, second = node.pod("first"), node.pod("second")
    node.call("ADD", _config(node, enabledad=True), first)
    assert sysctl(first, "ipv6/conf/eth0/accept_dad") == "1"
    with on(first) as links:
        link = links.find("eth0")
        assert link is not None and links.tentative_addresses(link.index) == ([], [])
        links.configure(link.index, ["fd77::3/64"], [])  # the next one that IPAM gives
    before = names(), names(second)
    with pytest.raises(AlreadyExists, match="fd77::3/64"):
        node.call("ADD", _config(node, enabledad=True), second, container_id="c2")
    assert (names(), names(second), node.reserved()) == (*before, ["10.77.0.2", "fd77::2"])


def test_settings_of_the_kernel(node: Node) -> None:
    """As the reference plugin sets them; the node's ends take no router's advertisements (CVE-2020-10749)."""
    result = node.call("ADD", _config(node, isDefaultGateway=True), pod := node.pod())
    inside = {"ipv4/conf/eth0/arp_notify": "1", "ipv6/conf/eth0/accept_dad": "0", "ipv6/conf/eth0/keep_addr_on_down": "1"}
    assert {key: sysctl(pod, key) for key in inside} == inside
    for one in result["interfaces"][:2]:
        assert sysctl(None, f"ipv6/conf/{one['name']}/accept_ra") == "0"
    assert sysctl(None, f"ipv6/conf/{_BRIDGE}/accept_dad") == "0"
    assert (sysctl(None, "ipv4/ip_forward"), sysctl(None, "ipv6/conf/all/forwarding")) == ("1", "1")


def test_ipv6_is_switched_on_where_it_was_off(node: Node) -> None:
    """In a pod whose namespace came without it."""
    pod = node.pod()
    with on(pod):
        for name in ("all", "default"):
            Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")
    node.call("ADD", _config(node), pod)
    reaches(pod, None, _GATEWAYS)


def test_routes_with_all_that_they_may_say(node: Node) -> None:
    """mtu, advmss, priority, table and scope of specification 1.1; CHECK finds them."""
    config = _config(node)
    config["ipam"]["routes"] = [
        {"dst": "192.0.2.0/24", "gw": "10.77.0.1", "mtu": 1300, "advmss": 1200, "priority": 42},
        {"dst": "198.51.100.0/24", "table": 1000},
        {"dst": "203.0.113.0/24", "scope": 253},
        {"dst": "2001:db8::/32", "gw": "fd77::1", "priority": 7},
    ]
    _result, config = node.attach(config, pod := node.pod())
    main = run("ip", "route", "show", place=pod)
    assert "192.0.2.0/24 via 10.77.0.1 dev eth0 metric 42 mtu 1300 advmss 1200" in main
    assert "203.0.113.0/24 dev eth0 scope link" in main
    assert "198.51.100.0/24 via 10.77.0.1 dev eth0" in run("ip", "route", "show", "table", "1000", place=pod)
    assert "2001:db8::/32 via fd77::1 dev eth0 metric 7" in run("ip", "-6", "route", "show", place=pod)
    node.call("CHECK", config, pod)


def test_a_bridge_that_is_none(node: Node) -> None:
    """STATUS and ADD say so; nothing is made."""
    add_pair(_BRIDGE, "other")
    pod = node.pod()
    for verb in ("STATUS", "ADD"):
        with pytest.raises(FailedPrecondition, match="bridge: cnit0 is a veth, not a bridge"):
            node.call(verb, _config(node), pod)
    assert (names(), node.reserved()) == ({_BRIDGE, "other"}, [])


def test_gc_finds_ports_whose_rules_are_gone(node: Node) -> None:
    """And rules whose port is gone; a network with a name too long for an alias is found as well."""
    name, container = "n" * 180, "c" * 120
    config = _config(node, name=name, macspoofchk=True)
    pod, kept = node.pod(), node.pod("kept")
    result = node.call("ADD", config, pod, container_id=container)
    _result, with_result = node.attach(config, kept, container_id="kept")
    run("ip", "link", "del", result["interfaces"][1]["name"])
    node.call("GC", {**config, "cni.dev/valid-attachments": [{"containerID": "kept", "ifname": "eth0"}]})
    node.call("CHECK", with_result, kept, container_id="kept")
    assert run("nft", "list", "ruleset").count(result["interfaces"][1]["name"]) == 0
    node.call("GC", {**config, "cni.dev/valid-attachments": []})
    assert names() == {_BRIDGE}


class TestMacSpoofing:
    """macspoofchk: a pod sends with its own address alone."""

    def _raw(self, source: Path, target: Path, sender: str, seconds: float) -> None:
        """A frame from `source` with `sender`, seen in `target`; TimeoutError when it does not come."""
        kind = 0x88B5  # for experiments
        with on(target) as links:
            link = links.find("eth0")
            assert link is not None
            seen = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(kind))
            seen.bind(("eth0", kind))
        with on(source):
            out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            out.bind(("eth0", 0))
        frame = bytes.fromhex(link.mac.replace(":", "") + sender.replace(":", "")) + struct.pack("!H", kind) + bytes(50)
        with seen, out:
            out.send(frame)
            seen.settimeout(seconds)
            assert seen.recv(100)[6:12].hex(":") == sender

    def test_strangers_are_dropped(self, node: Node) -> None:
        """And what is the pod's own goes on, as does what comes from a pod without the check."""
        config = _config(node, macspoofchk=True)
        one, two = node.pod("one"), node.pod("two")
        mine = node.call("ADD", config, one)["interfaces"][2]["mac"]
        theirs = node.call("ADD", _config(node), two, container_id="c2")
        self._raw(one, two, mine, 5)
        with pytest.raises(TimeoutError):
            self._raw(one, two, "02:00:00:00:00:66", 0.3)
        self._raw(two, one, "02:00:00:00:00:66", 5)
        reaches(one, two, addresses_of(theirs))

    @pytest.mark.parametrize(
        "break_",
        [
            lambda _port: run("nft", "flush", "ruleset"),
            lambda _port: run("nft", "flush", "chain", "bridge", "trivet_cni", "macspoof"),
            lambda _port: run("nft", "flush", "set", "bridge", "trivet_cni", "guarded"),
            lambda _port: run("nft", "flush", "set", "bridge", "trivet_cni", "allowed"),
        ],
    )
    def test_check_sees_the_rules_gone(self, node: Node, break_: Callable[[str], object]) -> None:
        """Whatever part of them; the next ADD repairs what is shared."""
        config = _config(node, macspoofchk=True)
        pod, other = node.pod(), node.pod("other")
        result, with_result = node.attach(config, pod)
        node.call("CHECK", with_result, pod)
        break_(result["interfaces"][1]["name"])
        with pytest.raises(FailedPrecondition, match="macspoofchk"):
            node.call("CHECK", with_result, pod)
        _result, later = node.attach(config, other, container_id="c2")
        node.call("CHECK", later, other, container_id="c2")
        node.call("DEL", with_result, pod)

    def test_nothing_is_left(self, node: Node) -> None:
        """Of the pod that is gone, by DEL without a namespace."""
        config = _config(node, macspoofchk=True)
        result = node.call("ADD", config, node.pod())
        assert result["interfaces"][1]["name"] in run("nft", "list", "ruleset")
        node.call("DEL", config)
        assert "veth" not in run("nft", "list", "ruleset")


class TestVlans:
    """vlan and vlanTrunk."""

    @pytest.fixture(autouse=True)
    def _needed(self) -> None:
        needs_bridge_vlans()

    def _vlans(self, node: Node, result: dict[str, Any]) -> dict[int, tuple[bool, bool]]:
        with on(None) as links:
            return bridge_vlans.vlans(links.socket, _port(node, result).index)

    def test_pods_of_a_vlan_reach_each_other_alone(self, node: Node) -> None:
        """Those of another one do not, and the gateway is the VLAN's own."""
        one, two, addresses = _two(node, _config(node, vlan=5))
        reaches(one, two, addresses)
        reaches(one, None, _GATEWAYS)
        three = node.pod("three")
        node.call("ADD", _config(node, vlan=6, isGateway=False), three, container_id="c3")
        for address in addresses:
            with pytest.raises((TimeoutError, OSError)):
                udp(three, two, address, seconds=0.3)
        assert {f"{_BRIDGE}.5", _BRIDGE} <= names()

    def test_the_gateway_of_a_vlan_is_listed_and_checked(self, node: Node) -> None:
        """The address of its interface gone, CHECK says so."""
        result, config = node.attach(_config(node, vlan=5), pod := node.pod())
        assert [one["name"] for one in result["interfaces"]][3:] == [f"{_BRIDGE}.5"]
        assert {ip["interface"] for ip in result["ips"]} == {2}
        node.call("CHECK", config, pod)
        run("ip", "address", "del", "10.77.0.1/24", "dev", f"{_BRIDGE}.5")
        with pytest.raises(FailedPrecondition, match="gateway's address"):
            node.call("CHECK", config, pod)

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({"vlan": 5}, {5: (True, True)}),
            ({"vlan": 5, "preserveDefaultVlan": True}, {1: (False, True), 5: (True, True)}),
            ({"vlanTrunk": [{"id": 7}, {"minID": 10, "maxID": 12}]}, {
                1: (True, True), 7: (False, False), 10: (False, False), 11: (False, False), 12: (False, False),
            }),
            ({"vlan": 5, "vlanTrunk": [{"id": 7}]}, {5: (True, True), 7: (False, False)}),
        ],
    )  # fmt: skip
    def test_the_vlans_of_a_port(self, node: Node, options: dict[str, Any], expected: dict[int, tuple[bool, bool]]) -> None:
        """Native and tagged; CHECK sees one gone."""
        result, config = node.attach(_config(node, isGateway=False, **options), pod := node.pod())
        assert self._vlans(node, result) == expected
        node.call("CHECK", config, pod)
        run("bridge", "vlan", "del", "dev", result["interfaces"][1]["name"], "vid", str(max(expected)))
        with pytest.raises(FailedPrecondition, match="vlan"):
            node.call("CHECK", config, pod)

    def test_all_vlans_in_a_trunk(self, node: Node) -> None:
        """4094 of them."""
        result = node.call("ADD", _config(node, isGateway=False, vlanTrunk=[{"minID": 1, "maxID": 4094}]), node.pod())
        assert sorted(self._vlans(node, result)) == list(range(1, 4095))

    def test_a_bridge_without_vlan_filtering(self, node: Node) -> None:
        """It is refused: the pod would be in no VLAN at all."""
        with on(None) as links:
            links.add_bridge(_BRIDGE)
        with pytest.raises(FailedPrecondition, match="without vlan_filtering"):
            node.call("ADD", _config(node, vlan=5), node.pod())
        with pytest.raises(FailedPrecondition, match="without vlan_filtering"):
            node.call("STATUS", _config(node, vlan=5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bridge": "sixteen-bytes-xx"}, "bridge"),
        ({"bridge": "a/b"}, "bridge"),
        ({"bridge": 5}, "bridge"),
        ({"bridge": "eleven-char", "vlan": 4000}, "bridge: 'eleven-char.4000'"),
        ({"mtu": -1}, "mtu"),
        ({"mtu": "1500"}, "mtu"),
        ({"vlan": 4095}, "vlan"),
        ({"vlan": -1}, "vlan"),
        ({"vlan": True}, "vlan"),
        ({"vlanTrunk": {}}, "vlanTrunk"),
        ({"vlanTrunk": [5]}, r"vlanTrunk\[0\]"),
        ({"vlanTrunk": [{"id": 0}]}, r"vlanTrunk\[0\].id"),
        ({"vlanTrunk": [{"id": 3}, {"minID": 3}]}, r"vlanTrunk\[1\]: minID and maxID"),
        ({"vlanTrunk": [{"minID": 9, "maxID": 3}]}, r"vlanTrunk\[0\].maxID"),
        ({"vlanTrunk": [{"minID": 1, "maxID": 4095}]}, r"vlanTrunk\[0\].maxID"),
        ({"ipMasqBackend": "bogus"}, "ipMasqBackend"),
        ({"isGateway": "yes"}, "isGateway"),
        ({"mac": "x"}, "mac"),
        ({"runtimeConfig": {"mac": "01:00:5e:00:00:01"}}, "runtimeConfig.mac"),
        ({"args": {"cni": {"mac": 5}}}, "args.cni.mac"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(node: Node, change: dict[str, Any], message: str) -> None:
    """By STATUS as by ADD, before anything is made."""
    pod = node.pod()
    for verb in ("STATUS", "ADD"):
        with pytest.raises(InvalidArgument, match=message):
            node.call(verb, _config(node, **change), pod)
    assert (names(), names(pod), node.reserved()) == (set(), set(), [])
