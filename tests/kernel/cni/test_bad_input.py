"""What is wrong with a call has the specification's code and a message that names it, and leaves nothing half-made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cni_plugins.ipam.host_local.leases import list_leases
from tests.kernel.cni import main_node
from tests.kernel.cni.main_node import Node, add_pair, names, run
from tests.kernel.cni.port_traffic import rules
from tests.kernel.cni.results import Answers

_SUBNET = "10.77.0.0/24"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with main_node.made(tmp_path) as node:
        yield node


@pytest.fixture
def answers(node: Node, monkeypatch: pytest.MonkeyPatch) -> Answers:
    return Answers(node, monkeypatch)


def test_leases_that_cannot_be_read_hold_no_pod(answers: Answers) -> None:
    """DEL succeeds, ADD refuses, STATUS says so: nobody gets an address that a living pod has."""
    node, pod = answers.node, answers.node.pod()
    config = answers.attach(node.config("bridge"), pod)
    database = node.directory / "ipam" / "net" / "leases.db"
    content = database.read_bytes()
    for place in range(0, len(content), 4096):
        database.write_bytes(content[:place] + bytes(4096) + content[place + 4096 :])
        status = answers("STATUS", node.config("bridge"))
        assert (status["code"], "leases.db is damaged" in status["msg"]) == (50, True), place
        refused = answers("ADD", node.config("bridge"), node.pod(f"pod{place}"), CONTAINERID="c2")
        assert (refused["code"], "leases.db is damaged" in refused["msg"]) == (5, True), place
        assert answers("DEL", config, pod) == {}
    assert names(pod) == set()
    database.unlink()
    assert answers("STATUS", node.config("bridge")) == {}


@pytest.mark.parametrize("kind", ["bridge", "ptp"])
def test_ipv6_that_is_switched_off_is_named(answers: Answers, kind: str) -> None:
    """On the node; in the container it is switched on."""
    node, pod = answers.node, answers.node.pod()
    for place in (None, pod):
        for name in ("all", "default"):
            run("sysctl", "-qw", f"net/ipv6/conf/{name}/disable_ipv6=1", place=place)
    answer = answers("ADD", node.config(kind, isGateway=True), pod)
    assert (answer["code"], "IPv6 is switched off there" in answer["msg"]) == (7, True), answer
    assert (names(pod), names() - {"cni0"}, list_leases(str(node.directory / "ipam"))) == (set(), set(), [])


def test_an_mtu_that_takes_ipv6_away_is_refused(answers: Answers) -> None:
    """By tuning, in a chain: the addresses of the plugin before would be gone."""
    config = answers.attach(answers.node.config("bridge"), pod := answers.node.pod())
    tuning = {"cniVersion": "1.1.0", "name": "net", "type": "tuning", "mtu": 1000, "prevResult": config["prevResult"]}
    answer = answers("ADD", tuning, pod)
    assert (answer["code"], "mtu: setting it to 1000: fd77::2/64 needs 1280" in answer["msg"]) == (7, True)
    assert answers("CHECK", config, pod) == {}


def _ipam(*ranges: dict[str, str], **more: Any) -> dict[str, Any]:
    return {"ipam": {"type": "host-local", "ranges": [list(ranges)], **more}}


@pytest.mark.parametrize(
    ("change", "variables", "code", "field"),
    [
        ({"mtu": "x"}, {}, 7, "mtu"),
        ({"isGateway": "yes"}, {}, 7, "isGateway"),
        ({"vlan": 4095}, {}, 7, "vlan"),
        ({"ipMasq": True, "ipMasqBackend": "x"}, {}, 7, "ipMasqBackend"),
        ({"ipam": "host-local"}, {}, 7, "ipam"),
        ({"ipam": {"type": "a/b"}}, {}, 7, "ipam.type"),
        (_ipam({"subnet": 7}), {}, 7, "ipam.ranges[0][0].subnet"),
        (_ipam({"subnet": _SUBNET}, {"subnet": _SUBNET}), {}, 7, "ipam.ranges[0][1]"),
        (_ipam({"subnet": _SUBNET, "gateway": "10.78.0.1"}), {}, 7, "ipam.ranges[0][0].gateway"),
        (_ipam({"subnet": _SUBNET, "rangeStart": "10.77.0.9", "rangeEnd": "10.77.0.8"}), {}, 7, "ipam.ranges[0][0]"),
        (_ipam({"subnet": _SUBNET}, routes=[{"dst": "x"}]), {}, 7, "ipam.routes[0]"),
        (_ipam({"subnet": _SUBNET}, routes=[{"dst": "1.0.0.0/8", "mtu": "x"}]), {}, 7, "routes[0].mtu"),
        (_ipam({"subnet": "10.77.0.0/30", "gateway": "10.77.0.2", "rangeStart": "10.77.0.2", "rangeEnd": "10.77.0.2"}), {}, 11, "ipam.ranges[0]: no address of 10.77.0.0/30 is free in network net: all from 10.77.0.2 to 10.77.0.2"),
        (_ipam({"subnet": "::ffff:10.66.1.0/120"}), {}, 7, "is an IPv4 address written as IPv6: write 10.66.1.0/24"),
        (_ipam({"subnet": _SUBNET, "gateway": "::ffff:10.77.0.1"}), {}, 7, "gateway: '::ffff:10.77.0.1' is an IPv4 address"),
        (_ipam({"subnet": _SUBNET}, routes=[{"dst": "::ffff:1.0.0.0/104"}]), {}, 7, "routes[0].dst: '::ffff:1.0.0.0/104' is an IPv4"),
        (_ipam({"subnet": "fe80::1%eth0/64"}), {}, 7, "ipam.ranges[0][0].subnet"),
        (_ipam({"subnet": "10.77.0.0/255.255.255.0"}), {}, 7, "ipam.ranges[0][0].subnet"),
        (_ipam({"subnet": _SUBNET}, routes=[{"dst": "1.0.0.0/8", "scope": 300}]), {}, 7, "routes[0].scope"),
        (_ipam({"subnet": _SUBNET}, routes=[{"dst": "1.0.0.0/8", "gw": "9.9.9.9"}]), {}, 7, "no network of the interface has that gateway"),
        ({"mtu": 1000}, {}, 7, "mtu: eth0 has 1000, and fd77::2/64 needs 1280"),
        ({"mtu": 67}, {}, 7, "with mtu 67"),
        ({"prevResult": {"cniVersion": "9"}}, {}, 7, "prevResult.cniVersion"),
        ({"prevResult": []}, {}, 7, "prevResult"),
        ({"prevResult": {"cniVersion": "1.0.0", "ips": [{"address": "x"}]}}, {}, 7, "prevResult.ips[0].address"),
        ({"cniVersion": "9.0.0"}, {}, 1, "cniVersion"),
        ({"name": "../x"}, {}, 7, "name"),
        ({}, {"NETNS": "/nowhere"}, 3, "CNI_NETNS"),
        ({}, {"NETNS": ""}, 4, "CNI_NETNS"),
        ({}, {"IFNAME": "sixteen-bytes-xx"}, 4, "CNI_IFNAME"),
        ({}, {"IFNAME": "taken0"}, 4, "CNI_IFNAME"),
        ({}, {"CONTAINERID": "a/b"}, 4, "CNI_CONTAINERID"),
        ({}, {"ARGS": "novalue"}, 7, "CNI_ARGS"),
        ({}, {"ARGS": "MAC=x"}, 7, "MAC"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["bridge", "ptp"])
def test_what_is_wrong_is_named(
    answers: Answers, kind: str, change: dict[str, Any], variables: dict[str, str], code: int, field: str
) -> None:
    if kind == "ptp" and ({"vlan", "isGateway"} & change.keys() or "MAC" in variables.get("ARGS", "")):
        pytest.skip("an option of another plugin")
    node, pod = answers.node, answers.node.pod()
    add_pair("taken0", "taken1", pod)
    before = names(pod), rules()
    config = {**node.config(kind, isGateway=True, ipMasq=True), **change}
    if isinstance(config["ipam"], dict):
        config["ipam"] = {**config["ipam"], "dataDir": str(node.directory / "ipam")}
    answer = answers("ADD", config, **{"NETNS": str(pod), **variables})
    assert (answer.get("code"), field in answer.get("msg", "")) == (code, True), answer
    assert (names(pod), rules()) == before
    assert (names() - {"cni0"}, list_leases(str(node.directory / "ipam"))) == (set(), [])
