"""The plugin ptp: traffic through the node, its routes, and what CHECK sees of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime_core.errors import FailedPrecondition, InvalidArgument, NotFound
from tests.kernel.cni import main_node
from tests.kernel.cni.main_node import Node, addresses_of, answers, names, on, reaches, run, sysctl, tcp, unsettled, uplink


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with main_node.made(tmp_path) as node:
        yield node


def _config(node: Node, **more: Any) -> dict[str, Any]:
    config = node.config("ptp", **more)
    config["ipam"]["routes"] = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
    return config


def test_pods_reach_each_other_and_the_node(node: Node) -> None:
    """Everything goes by the gateway, at once after ADD: TCP and UDP, IPv4 and IPv6."""
    one, two = node.pod("one"), node.pod("two")
    node.call("ADD", _config(node), one)
    addresses = addresses_of(node.call("ADD", _config(node), two, container_id="c2"))
    reaches(one, two, addresses)
    reaches(one, None, ["10.77.0.1", "fd77::1"])
    reaches(None, two, addresses)


@pytest.mark.parametrize("backend", [None, "nftables", "iptables"])
def test_ip_masq(node: Node, backend: str | None) -> None:
    """What leaves comes from the node with it, and as it is without; DEL and GC take it away."""
    outside = node.pod("outside")
    uplink(outside)
    plain, hidden = node.pod("plain"), node.pod("hidden")
    more = {"ipMasqBackend": backend} if backend else {}
    node.call("ADD", _config(node), plain, container_id="plain")
    config = _config(node, ipMasq=True, **more)
    _result, with_result = node.attach(config, hidden)
    assert tcp(plain, outside, "198.51.100.2") == "10.77.0.2"
    assert tcp(hidden, outside, "198.51.100.2") == "198.51.100.1"
    assert tcp(hidden, outside, "2001:db8::2") == "2001:db8::1"
    node.call("CHECK", with_result, hidden)
    node.call("GC", {**config, "cni.dev/valid-attachments": []})
    with pytest.raises((FailedPrecondition, NotFound)):
        node.call("CHECK", with_result, hidden)
    assert not [name for name in names() if name.startswith("veth")]


def test_the_addresses_answer_when_add_ends(node: Node) -> None:
    """At both ends none is tentative, and each one's multicast group is joined, by which neighbours ask for it."""
    for number in range(6):
        pod = node.pod(f"pod{number}")
        result = node.call("ADD", _config(node), pod, container_id=f"c{number}")
        near = result["interfaces"][0]["name"]
        for place, name, address in ((pod, "eth0", addresses_of(result)[1]), (None, near, "fd77::1")):
            assert unsettled(place, name) == ([], [])
            assert answers(place, name, address)


def test_mtu(node: Node) -> None:
    """Of both ends."""
    result = node.call("ADD", _config(node, mtu=1300), pod := node.pod())
    assert [one["mtu"] for one in result["interfaces"]] == [1300, 1300]
    with on(pod) as links:
        link = links.find("eth0")
    assert link is not None and link.mtu == 1300


def test_the_routes_of_the_pod(node: Node) -> None:
    """The gateway alone is at the other end; the network lies behind it, from the pod's own address."""
    result = node.call("ADD", _config(node), pod := node.pod())
    four, six = run("ip", "route", "show", place=pod), run("ip", "-6", "route", "show", place=pod)
    assert sorted(line.strip() for line in four.splitlines()) == [
        "10.77.0.0/24 via 10.77.0.1 dev eth0 src 10.77.0.2",
        "10.77.0.1 dev eth0 scope link src 10.77.0.2",
        "default via 10.77.0.1 dev eth0",
    ]
    assert "fd77::1 dev eth0 src fd77::2" in six
    assert "fd77::/64 via fd77::1 dev eth0 src fd77::2" in six
    near = result["interfaces"][0]["name"]
    assert "10.77.0.2 dev " + near + " scope host" in run("ip", "route", "show")
    assert "inet 10.77.0.1/32" in run("ip", "address", "show", near)
    assert sysctl(None, f"ipv6/conf/{near}/accept_ra") == "0"
    assert (sysctl(None, "ipv4/ip_forward"), sysctl(None, "ipv6/conf/all/forwarding")) == ("1", "1")


@pytest.mark.parametrize(
    ("break_", "message"),
    [
        (("ip", "route", "del", "10.77.0.2"), "lacks 10.77.0.2/32"),
        (("ip", "-6", "route", "del", "fd77::2"), "lacks fd77::2/128"),
        (("ip", "address", "del", "10.77.0.1/32", "dev", "{near}"), "lacks 10.77.0."),  # its route goes with it
        (("ip", "link", "set", "{near}", "down"), "is missing or down"),
    ],
)
def test_check_sees_what_is_gone_on_the_node(node: Node, break_: tuple[str, ...], message: str) -> None:
    """Routes to the pod, and the gateway's address."""
    result, config = node.attach(_config(node), pod := node.pod())
    node.call("CHECK", config, pod)
    run(*[word.format(near=result["interfaces"][0]["name"]) for word in break_])
    with pytest.raises((FailedPrecondition, NotFound), match=message):
        node.call("CHECK", config, pod)
    node.call("DEL", config, pod)


def test_a_pod_with_one_address_alone(node: Node) -> None:
    """/32 with a gateway from outside of it, as providers of clouds have them; without one it is refused."""
    addresses = [{"address": "10.77.0.9/32", "gateway": "169.254.1.1"}]
    routes = [{"dst": "0.0.0.0/0"}]
    pod = node.pod()
    config = node.config("ptp", ipam={"type": "static", "addresses": addresses, "routes": routes})
    _result, config = node.attach(config, pod)
    node.call("CHECK", config, pod)
    reaches(pod, None, ["169.254.1.1"])
    node.call("DEL", config, pod)
    before = names(), names(pod)
    with pytest.raises(InvalidArgument, match="without a gateway"):
        node.call("ADD", node.config("ptp", ipam={"type": "static", "addresses": [{"address": "10.77.0.9/32"}]}), pod)
    assert (names(), names(pod)) == before


@pytest.mark.parametrize("verb", ["ADD", "STATUS"])
@pytest.mark.parametrize(
    ("change", "message"), [({"ipam": None}, "ipam"), ({"mtu": "x"}, "mtu"), ({"ipMasqBackend": "x"}, "ipMasqBackend")]
)
def test_what_is_wrong_is_named(node: Node, verb: str, change: dict[str, Any], message: str) -> None:
    """And nothing is made."""
    pod = node.pod()
    with pytest.raises(InvalidArgument, match=message):
        node.call(verb, node.config("ptp", **change), pod)
    assert (names(), names(pod)) == (set(), set())
