"""What every interface-making plugin keeps: nothing left by a refused ADD, a DEL that always works, a CHECK that sees."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime_core.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted, TrivetError
from runtime_core.testing import namespaces
from tests.kernel.cni import main_node
from tests.kernel.cni.main_node import Node, add_pair, names, needs_kind, on, run

#: plugin → what its configuration needs besides ipam
_PLUGINS: dict[str, dict[str, Any]] = {
    "bridge": {"bridge": "cnit0", "isDefaultGateway": True, "macspoofchk": True},
    "ptp": {},
    "macvlan": {"master": "up0"},
    "ipvlan": {"master": "up0"},
    "vlan": {"master": "up0", "vlanId": 7},
    "dummy": {},
    "tap": {},
    "host-device": {"device": "dev0"},
}
_NEEDED = ("ipvlan", "vlan", "dummy")


@pytest.fixture(params=_PLUGINS)
def kind(request: pytest.FixtureRequest) -> str:
    if request.param in _NEEDED:
        needs_kind(request.param)
    return str(request.param)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with main_node.made(tmp_path) as node:
        add_pair("up0", "up1")
        add_pair("dev0", "dev1")
        yield node


def _config(node: Node, kind: str, **more: Any) -> dict[str, Any]:
    return node.config(kind, **{**_PLUGINS[kind], **more})


def _everything(node: Node, pod: Path) -> dict[str, Any]:
    rules = run("nft", "list", "ruleset")
    return {"node": names() - {"cnit0"}, "pod": names(pod), "guarded": rules.count("veth"), "reserved": node.reserved()}


def test_the_interface_is_there_with_its_addresses(node: Node, kind: str) -> None:
    """Both families, up, as the result says; CHECK agrees; DEL takes it away."""
    pod = node.pod()
    before = _everything(node, pod)
    result, config = node.attach(_config(node, kind), pod)
    mine = result["interfaces"][-1]
    assert (mine["name"], mine["sandbox"]) == ("eth0", str(pod))
    assert {ip["interface"] for ip in result["ips"]} == {len(result["interfaces"]) - 1}
    assert [ip["address"] for ip in result["ips"]] == ["10.77.0.2/24", "fd77::2/64"]
    with on(pod) as links:
        link = links.find("eth0")
        assert link is not None and link.is_up and link.mac == mine["mac"] and link.mtu == mine["mtu"]
        assert {"10.77.0.2/24", "fd77::2/64"} <= set(links.addresses(link.index))
    node.call("CHECK", config, pod)
    node.call("DEL", config, pod)
    assert _everything(node, pod) == before


@pytest.mark.parametrize(
    ("ipam", "kind_of_error"),
    [
        ({"type": "absent"}, NotFound),
        ({"type": "host-local"}, TrivetError),
        ({"type": "../evil"}, InvalidArgument),
        ("host-local", InvalidArgument),
    ],
)
def test_an_add_that_ipam_refuses_leaves_nothing(node: Node, kind: str, ipam: Any, kind_of_error: type[TrivetError]) -> None:
    """No link in the pod or on the node, no rule, no address; a device is back under its name."""
    pod = node.pod()
    before = _everything(node, pod)
    with pytest.raises(kind_of_error):
        node.call("ADD", _config(node, kind, ipam=ipam), pod)
    assert _everything(node, pod) == before


def test_an_add_without_a_free_address_leaves_nothing(node: Node, kind: str) -> None:
    """The same when the second subnet is exhausted: the first one's address is given back."""
    pod = node.pod()
    small = _config(node, kind, subnets=("10.77.0.0/24", "fd77::/126"))
    for number in range(4):
        try:
            node.call("ADD", {**small, "type": "host-local"}, "/nowhere", container_id=f"other{number}")
        except ResourceExhausted:
            break
    before = names() - {"cnit0"}, names(pod)
    with pytest.raises(ResourceExhausted):
        node.call("ADD", small, pod, container_id="late")
    assert (names() - {"cnit0"}, names(pod)) == before
    with pytest.raises(TrivetError):
        node.call(
            "CHECK", {**small, "type": "host-local", "prevResult": {"cniVersion": "1.1.0", "ips": [{"address": "10.77.0.9/24"}]}}
        )


@pytest.mark.parametrize("netns", ["", "/nowhere/at/all", "file"])
@pytest.mark.parametrize("has_result", [True, False])
def test_del_without_a_namespace(node: Node, kind: str, netns: str, has_result: bool) -> None:
    """The pod is gone: twice, with or without the result, nothing is an error, left, or made at that path."""
    if kind == "host-device":
        pytest.skip("a veth, which stands for the device here, dies with its namespace; see test_main_host_device.py")
    pod = node.pod()
    before = names() - {"cnit0"}
    _result, config = node.attach(_config(node, kind), pod)
    if not has_result:
        del config["prevResult"]
    plain = node.directory / "plain"
    plain.touch()
    namespaces.unpin_namespace(pod)
    for _time in range(2):
        node.call("DEL", config, plain if netns == "file" else netns)
        assert (names() - {"cnit0"}, node.reserved()) == (before, [])
    assert not Path("/nowhere").exists()
    assert plain.read_bytes() == b""


def test_del_twice_and_del_without_add(node: Node, kind: str) -> None:
    """Each succeeds, and harms nothing else in the pod."""
    pod = node.pod()
    before = names(pod)
    config = _config(node, kind)
    node.call("DEL", config, pod)
    _result, with_result = node.attach(config, pod)
    for _time in range(2):
        node.call("DEL", with_result, pod)
        assert names(pod) == before


@pytest.mark.parametrize(
    "change",
    [
        {"mtu": -1, "mode": "x", "vlan": "x", "vlanId": -3, "hairpinMode": True, "promiscMode": True, "mac": 5, "owner": "x"},
        {"master": "gone0", "bridge": "a/b", "device": "", "hwaddr": "x", "ipMasqBackend": "x", "kernelpath": "/etc"},
    ],
)
def test_del_with_a_configuration_that_is_bad_by_now(node: Node, kind: str, change: dict[str, Any]) -> None:
    """What was made can be taken down."""
    pod = node.pod()
    before = _everything(node, pod)
    _result, config = node.attach(_config(node, kind), pod)
    node.call("DEL", {**config, **change}, pod)
    assert _everything(node, pod) == before


@pytest.mark.parametrize("name", ["sixteen-bytes-xx", "a/b", "..", "a b", "a:b", "ünïcödëünïcödë", ""])
def test_an_interface_name_that_is_none(node: Node, kind: str, name: str) -> None:
    """The error names the field, and nothing is made."""
    pod = node.pod()
    before = _everything(node, pod)
    with pytest.raises(InvalidArgument, match="CNI_IFNAME"):
        node.call("ADD", _config(node, kind), pod, interface=name)
    assert _everything(node, pod) == before


def test_an_interface_that_is_there_already(node: Node, kind: str) -> None:
    """ADD is refused and harms nothing of the first, for which CHECK still holds."""
    pod = node.pod()
    _result, config = node.attach(_config(node, kind), pod)
    before = _everything(node, pod)
    with pytest.raises(AlreadyExists, match="CNI_IFNAME: the container has an interface eth0 already"):
        node.call("ADD", _config(node, kind), pod, container_id="c2")
    assert _everything(node, pod) == before
    node.call("CHECK", config, pod)


@pytest.mark.parametrize("netns", ["/proc/thread-self/ns/net", "/nowhere", "/etc/hostname", ""])
def test_a_namespace_that_is_none_of_a_container(node: Node, kind: str, netns: str) -> None:
    """Neither is the node's own; nothing is made there."""
    before = names()
    with pytest.raises((NotFound, InvalidArgument), match="CNI_NETNS"):
        node.call("ADD", _config(node, kind), netns)
    assert names() - {"cnit0"} == before
    node.call("DEL", _config(node, kind), netns)
    assert names() - {"cnit0"} == before


def test_a_name_that_the_node_has_too(node: Node, kind: str) -> None:
    """eth0 of the node is in nobody's way, whichever way the link goes into the pod."""
    add_pair("eth0", "eth1")
    pod = node.pod()
    _result, config = node.attach(_config(node, kind), pod)
    node.call("CHECK", config, pod)
    node.call("DEL", config, pod)
    assert "eth0" in names()


_BREAKS: list[tuple[str, Callable[[Node, Path], object], str]] = [
    ("link", lambda _node, pod: run("ip", "link", "del", "eth0", place=pod), "eth0 of the container is missing|is not on bridge|is missing or down"),
    ("down", lambda _node, pod: run("ip", "link", "set", "eth0", "down", place=pod), "eth0 of the container is missing or down"),
    ("address", lambda _node, pod: run("ip", "address", "del", "10.77.0.2/24", "dev", "eth0", place=pod), "lacks 10.77.0.2/24"),
    ("address6", lambda _node, pod: run("ip", "address", "del", "fd77::2/64", "dev", "eth0", place=pod), "lacks fd77::2/64"),
    ("route", lambda _node, pod: run("ip", "route", "del", "192.0.2.0/24", place=pod), "lacks the route to 192.0.2.0/24"),
    ("mac", lambda _node, pod: run("ip", "link", "set", "eth0", "address", "02:00:00:00:00:99", place=pod), "has the address 02:00:00:00:00:99"),
]  # fmt: skip


@pytest.mark.parametrize(("break_", "message"), [row[1:] for row in _BREAKS], ids=[row[0] for row in _BREAKS])
def test_check_sees_what_is_broken(node: Node, kind: str, break_: Callable[[Node, Path], object], message: str) -> None:
    """And DEL takes down what is left."""
    if kind == "ipvlan" and "02:" in message:
        pytest.skip("an ipvlan has its master's hardware address")
    pod = node.pod()
    before = names() - {"cnit0"}, names(pod)
    config = _config(node, kind)
    config["ipam"]["routes"] = [{"dst": "192.0.2.0/24", "gw": "10.77.0.1"}]
    _result, config = node.attach(config, pod)
    node.call("CHECK", config, pod)
    break_(node, pod)
    with pytest.raises((NotFound, FailedPrecondition), match=message):
        node.call("CHECK", config, pod)
    node.call("DEL", config, pod)
    if kind != "host-device" or "missing|" not in message:  # a veth that is deleted does not come home
        assert (names() - {"cnit0"}, names(pod)) == before


def test_check_needs_what_add_gave(node: Node, kind: str) -> None:
    """prevResult, in the same namespace."""
    pod, other = node.pod(), node.pod("other")
    result, config = node.attach(_config(node, kind), pod)
    with pytest.raises(InvalidArgument, match="prevResult"):
        node.call("CHECK", _config(node, kind), pod)
    elsewhere = [{**one, "sandbox": str(other)} if one.get("sandbox") else one for one in result["interfaces"]]
    with pytest.raises(InvalidArgument, match=f"prevResult: eth0 is in {other}"):
        node.call("CHECK", {**config, "prevResult": {**result, "interfaces": elsewhere}}, pod)


def test_status_asks_the_ipam_plugin(node: Node, kind: str) -> None:
    """Ready with it, and not when it is absent or refuses."""
    node.call("STATUS", _config(node, kind))
    with pytest.raises(NotFound, match="'absent' is neither in"):
        node.call("STATUS", _config(node, kind, ipam={"type": "absent"}))
    with pytest.raises(TrivetError, match="range"):
        node.call("STATUS", _config(node, kind, ipam={"type": "host-local"}))


def test_gc_keeps_the_named_and_nothing_else(node: Node, kind: str) -> None:
    """Stale addresses go, and stale links of the node; without a list nothing does."""
    pod, stale = node.pod(), node.pod("stale")
    config = _config(node, kind)
    _result, kept = node.attach(config, pod)
    other = {**config, **{"host-device": {"device": "up1"}, "vlan": {"vlanId": 8}}.get(kind, {})}
    node.call("ADD", other, stale, container_id="c2")
    before = names()
    node.call("GC", config)
    assert (node.reserved(), names()) == (["10.77.0.2", "fd77::2", "10.77.0.3", "fd77::3"], before)
    node.call("GC", {**config, "cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]})
    assert node.reserved() == ["10.77.0.2", "fd77::2"]
    assert len(before - names()) == (1 if kind in ("bridge", "ptp") else 0)
    node.call("CHECK", kept, pod)


def test_gc_leaves_other_networks_alone(node: Node, kind: str) -> None:
    """Also one whose name begins like this one's."""
    pod = node.pod()
    theirs = _config(node, kind, name="net2")
    _result, kept = node.attach(theirs, pod)
    node.call("GC", {**_config(node, kind), "cni.dev/valid-attachments": []})
    node.call("CHECK", kept, pod)


def test_a_del_of_another_attachment_leaves_the_interface(node: Node, kind: str) -> None:
    """The DEL that follows a refused ADD does not take the interface of the one that has it."""
    pod = node.pod()
    _result, config = node.attach(_config(node, kind), pod)
    if kind == "host-device":
        pytest.skip("the alias of a device is its old name: it does not say whose it is")
    node.call("DEL", _config(node, kind, name="net2", ipam=None), pod)
    node.call("CHECK", config, pod)
