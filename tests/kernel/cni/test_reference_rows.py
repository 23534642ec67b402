"""What the reference plugins (v1.9.1) get wrong, one after the other: ours do not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime_core.testing import namespaces
from tests.kernel.cni import main_node, mapped_ports
from tests.kernel.cni.main_node import Node, add_pair, names, on, run
from tests.kernel.cni.mapped_ports import NODE, OUTSIDE, WEB
from tests.kernel.cni.port_traffic import filters, rules
from tests.kernel.cni.results import Answers

_BACKENDS = pytest.mark.parametrize("backend", ["nftables", "iptables"])
_GONE = pytest.mark.parametrize("netns", ["", "/nowhere"])
_SMALL = ("10.77.0.0/29",)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with main_node.made(tmp_path) as node:
        add_pair("up0", "up1")
        yield node


@pytest.fixture
def answers(node: Node, monkeypatch: pytest.MonkeyPatch) -> Answers:
    return Answers(node, monkeypatch)


@_BACKENDS
@_GONE
@pytest.mark.parametrize("kind", ["bridge", "ptp"])
def test_row_1_del_without_a_namespace_takes_the_masquerading_away(answers: Answers, kind: str, backend: str, netns: str) -> None:
    """And the addresses, and the links."""
    node, pod = answers.node, answers.node.pod()
    config = answers.attach(node.config(kind, ipMasq=True, ipMasqBackend=backend), pod)
    assert "10.77.0.2" in rules()
    namespaces.unpin_namespace(pod)
    assert answers("DEL", config, netns) == {}
    assert (filters(), node.reserved(), names() - {"cni0"}) == ("", [], {"up0", "up1"})


@_BACKENDS
def test_row_2_gc_takes_away_what_is_stale_and_nothing_else(answers: Answers, backend: str) -> None:
    """Addresses, links, masquerading, port maps and admissions."""
    node, pods = answers.node, {name: answers.node.pod(name) for name in ("kept", "stale")}
    bridge = node.config("bridge", ipMasq=True, ipMasqBackend=backend, isGateway=True)
    chain: dict[str, list[dict[str, Any]]] = {}
    for number, (name, pod) in enumerate(pods.items()):
        first = answers.attach(bridge, pod, CONTAINERID=name)
        more = {"cniVersion": "1.1.0", "name": "net", "backend": backend, "prevResult": first["prevResult"]}
        ports = {"portMappings": [{**WEB, "hostPort": 8080 + number}]}
        chain[name] = [first, {**more, "type": "firewall"}, {**more, "type": "portmap", "runtimeConfig": ports}]
        for config in chain[name][1:]:
            answers.attach(config, pod, CONTAINERID=name)
    assert all(f"10.77.0.{number}" in rules() for number in (2, 3))
    valid = [{"containerID": "kept", "ifname": "eth0"}]
    for config in chain["stale"]:
        without = {key: value for key, value in config.items() if key not in ("prevResult", "runtimeConfig")}
        assert answers("GC", {**without, "cni.dev/valid-attachments": valid}) == {}
    assert ("10.77.0.3" in rules(), "8081" in rules(), names(pods["stale"])) == (False, False, set())
    assert node.reserved() == ["10.77.0.2", "fd77::2"]
    for config in chain["kept"]:
        assert answers("CHECK", config, pods["kept"], CONTAINERID="kept") == {}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"type": "macvlan", "master": "gone0"}, "master: there is no gone0"),
        ({"type": "host-local", "ipam": {"type": "host-local"}}, "ipam.ranges"),
        ({"type": "bridge", "ipam": {"type": "absent"}}, "'absent'"),
        ({"type": "bridge", "ipam": {"type": "host-local"}}, "ipam.ranges"),
    ],
)
def test_row_3_status_is_not_ok_where_add_would_fail(answers: Answers, config: dict[str, Any], message: str) -> None:
    """Code 50 or 51, as the specification has them."""
    answer = answers("STATUS", {**answers.node.config(config["type"]), **config})
    assert (answer["code"] in (50, 51), message in answer["msg"]) == (True, True), answer


@pytest.mark.parametrize(("kind", "more"), [("bridge", {}), ("macvlan", {"master": "up0"}), ("tap", {}), ("ptp", {})])
def test_row_4_a_refused_add_leaves_no_link(answers: Answers, kind: str, more: dict[str, Any]) -> None:
    """With every address taken: not in the pod, and not on the node."""
    node, pod = answers.node, answers.node.pod()
    config = node.config(kind, subnets=_SMALL, **more)
    for number in range(5):  # of eight, two are the network's own and one is the gateway's
        answers.attach({**config, "type": "host-local"}, "/nowhere", CONTAINERID=f"other{number}")
    answer = answers("ADD", config, pod)
    assert (answer["code"], "10.77.0" in answer["msg"]) == (11, True), answer
    assert (names(pod), names() - {"cni0"}) == (set(), {"up0", "up1"})


@_BACKENDS
@pytest.mark.parametrize(("masq_all", "seen"), [(False, OUTSIDE[4]), (True, "10.77.0.1")])
def test_row_5_masq_all_is_minded(tmp_path: Path, backend: str, masq_all: bool, seen: str) -> None:
    """A client outside is the node to the pod, by nftables too."""
    with mapped_ports.made(tmp_path, backend) as mapped:
        mapped.add(WEB, masqAll=masq_all)
        assert mapped.seen(mapped.outside, NODE[4]) == seen


def test_row_6_arguments_need_no_ignore_unknown(answers: Answers) -> None:
    """CNI_ARGS=MAC=…, which is bridge's, reaches host-local too: at ADD, CHECK and DEL."""
    node, pod, arguments = answers.node, answers.node.pod(), "MAC=02:00:00:00:00:42"
    config = answers.attach(node.config("bridge"), pod, ARGS=arguments)
    assert config["prevResult"]["interfaces"][2]["mac"] == "02:00:00:00:00:42"
    assert answers("CHECK", config, pod, ARGS=arguments) == answers("DEL", config, pod, ARGS=arguments) == {}
    assert node.reserved() == []


def test_row_7_sbr_leaves_the_earlier_plugins_check_alone(answers: Answers) -> None:
    """It has moved the routes, and bridge's CHECK finds them."""
    node, pod = answers.node, answers.node.pod()
    bridge = answers.attach(node.config("bridge", isDefaultGateway=True), pod)
    sbr = answers.attach({"cniVersion": "1.1.0", "name": "net", "type": "sbr", "prevResult": bridge["prevResult"]}, pod)
    assert "default" in run("ip", "route", "show", "table", "100", place=pod)
    assert answers("CHECK", sbr, pod) == answers("CHECK", bridge, pod) == {}


def test_row_7_del_of_sbr_without_a_namespace_makes_no_file(answers: Answers) -> None:
    absent = answers.node.directory / "absent"
    assert answers("DEL", {"cniVersion": "1.1.0", "name": "net", "type": "sbr"}, absent) == {}
    assert not absent.exists()


@pytest.mark.parametrize("is_gone", [False, True])
def test_row_8_host_device_may_be_deleted_twice(answers: Answers, is_gone: bool) -> None:
    """Also with the namespace gone."""
    node, pod = answers.node, answers.node.pod()
    config = answers.attach(node.config("host-device", device="up1"), pod)
    if is_gone:
        namespaces.unpin_namespace(pod)
    for _time in range(2):
        assert answers("DEL", config, pod) == {}
    assert node.reserved() == []


@pytest.mark.parametrize(
    ("config", "change", "field"),
    [
        ({"type": "bridge"}, {"vlan": 5000}, "vlan"),
        ({"type": "bridge"}, {"hairpinMode": True, "promiscMode": True}, "promiscMode"),
        ({"type": "macvlan", "master": "up0"}, {"mode": "none"}, "mode"),
        ({"type": "macvlan", "master": "up0"}, {"master": "gone0"}, "master"),
        ({"type": "ptp"}, {"mtu": -1}, "mtu"),
        ({"type": "tap"}, {"owner": "root"}, "owner"),
    ],
)
def test_row_9_what_a_bad_configuration_made_is_taken_down(
    answers: Answers, config: dict[str, Any], change: dict[str, Any], field: str
) -> None:
    """ADD refuses what it has become, DEL does not."""
    node, pod, other = answers.node, answers.node.pod(), answers.node.pod("other")
    made = answers.attach(node.config(**{"kind": config["type"], **{k: v for k, v in config.items() if k != "type"}}), pod)
    bad = {**made, **change}
    answer = answers("ADD", bad, other, CONTAINERID="c2")
    assert (answer["code"] in (3, 7), field in answer["msg"]) == (True, True), answer
    assert answers("DEL", bad, pod) == {}
    assert (names(pod), names() - {"cni0"}, node.reserved()) == (set(), {"up0", "up1"}, [])


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("ip address del 10.77.0.1/24 dev cni0", "lacks the gateway's address 10.77.0.1/24"),
        ("ip address del fd77::1/64 dev cni0", "lacks the gateway's address fd77::1/64"),
        ("nft flush ruleset", "macspoofchk"),
        ("nft flush chain bridge trivet_cni macspoof", "macspoofchk"),
    ],
)
def test_row_10_check_sees_what_is_gone_of_the_node(answers: Answers, command: str, message: str) -> None:
    pod = answers.node.pod()
    config = answers.attach(answers.node.config("bridge", isGateway=True, macspoofchk=True), pod)
    assert answers("CHECK", config, pod) == {}
    run(*command.split())
    assert message in answers("CHECK", config, pod)["msg"]


def test_row_11_the_bridge_of_a_tap_is_the_nodes(answers: Answers) -> None:
    """Where the container has none of that name; frames are seen in test_main_tap.py."""
    node, pod = answers.node, answers.node.pod()
    with on(None) as links:
        links.add_bridge("node0")
    config = answers.attach(node.config("tap", bridge="node0"), pod)
    port = config["prevResult"]["interfaces"][0]["name"]
    assert port in run("ip", "-o", "link", "show", "master", "node0")
    assert answers("CHECK", config, pod) == answers("DEL", config, pod) == {}
    assert names() == {"up0", "up1", "node0"}


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"type": "portmap", "runtimeConfig": {"portMappings": [{**WEB, "hostIP": "x"}]}}, "hostIP"),
        ({"type": "firewall", "backend": "bogus"}, "backend"),
        ({"type": "host-local", "ipam": {"type": "host-local", "subnet": "10.77.0.0/24", "gateway": "10.78.0.1"}}, "gateway"),
    ],
)
def test_row_12_what_makes_no_sense_is_not_taken(answers: Answers, config: dict[str, Any], field: str) -> None:
    """Code 7 and the field."""
    pod, before = answers.node.pod(), filters()
    earlier = {"cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "sandbox": str(pod)}], "ips": [{"address": "10.77.0.2/24"}]}
    answer = answers("ADD", {"cniVersion": "1.1.0", "name": "net", "prevResult": earlier, **config}, pod)
    assert (answer["code"], field in answer["msg"], filters()) == (7, True, before), answer


def test_row_12_dhcp_without_a_version_is_answered(answers: Answers) -> None:
    """By an error that says what is missing: the daemon."""
    config = {"name": "net", "type": "dhcp", "ipam": {"type": "dhcp", "daemonSocketPath": str(answers.node.directory / "none")}}
    answer = answers("ADD", config, answers.node.pod())
    assert (answer["code"] not in (0, 999), "none" in answer["msg"]) == (True, True), answer
