"""What container network plugins were attacked with, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime_core.cni import conf
from runtime_core.errors import InvalidArgument
from tests.kernel.cni import main_node, mapped_ports
from tests.kernel.cni.main_node import Node, needs_bridge_vlans, on, run, sysctl
from tests.kernel.cni.mapped_ports import NODE, OUTSIDE, POD, WEB, Mapped, backends
from tests.kernel.cni.port_traffic import talk
from tests.kernel.cni.results import Answers


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with main_node.made(tmp_path) as node:
        yield node


@pytest.fixture
def mapped(tmp_path: Path, backend: str) -> Iterator[Mapped]:
    with mapped_ports.made(tmp_path, backend) as mapped:
        yield mapped


@backends
def test_cve_2019_9946_a_port_map_does_not_come_before_a_services_rules(mapped: Mapped) -> None:
    """A port that a service has, by rules of iptables that were there before, stays the service's."""
    service = ["-d", NODE[4], "-p", "tcp", "--dport", "8080", "-j", "DNAT", "--to-destination", f"{OUTSIDE[4]}:7"]
    run("iptables", "-t", "nat", "-A", "PREROUTING", *service)
    mapped.add(WEB)
    assert talk("tcp", mapped.pod, (NODE[4], 8080), mapped.outside, (OUTSIDE[4], 7)) == POD[4]


@pytest.mark.parametrize("kind", ["bridge", "ptp"])
def test_cve_2020_10749_the_node_hears_no_router_advertisements_of_a_pod(node: Node, kind: str) -> None:
    """On its end of the pair, and on the bridge."""
    result = node.call("ADD", node.config(kind, isGateway=True), node.pod())
    for interface in result["interfaces"]:
        if not interface.get("sandbox"):
            assert sysctl(None, f"ipv6/conf/{interface['name']}/accept_ra") == "0"


def test_cve_2020_10749_nor_by_the_pair_of_a_tap(node: Node) -> None:
    with on(None) as links:
        links.add_bridge("node0")
    result = node.call("ADD", node.config("tap", bridge="node0"), node.pod())
    assert sysctl(None, f"ipv6/conf/{result['interfaces'][0]['name']}/accept_ra") == "0"


@pytest.mark.parametrize(
    ("kind", "config", "made"),
    [
        ("bridge", {"bridge": "node0"}, ["node0"]),
        ("tap", {"bridge": "node0"}, ["node0"]),
        ("bridge", {"bridge": "node0", "vlan": 7, "isGateway": True}, ["node0", "node0.7"]),
    ],
)
def test_cve_2020_10749_nor_by_a_link_that_was_there_before(
    node: Node, kind: str, config: dict[str, object], made: list[str]
) -> None:
    """Somebody else made it, and the kernel lets new links listen."""
    if "vlan" in config:
        needs_bridge_vlans()
    with on(None) as links:
        links.add_bridge("node0", vlan_filtering="vlan" in config)
        if "node0.7" in made:
            links.add_veth("vlanport", "node0.7", namespace=-1)
    for name in made:
        run("sysctl", "-qw", f"net/ipv6/conf/{name}/accept_ra=1")
    node.call("ADD", node.config(kind, **config), node.pod())
    assert {name: sysctl(None, f"ipv6/conf/{name}/accept_ra") for name in made} == dict.fromkeys(made, "0")


@pytest.mark.parametrize("kind", ["../evil", "/bin/evil", "a/../evil", "..", ".", "", "evil\n", 7])
def test_cve_2021_20206_no_program_is_executed_by_a_path(node: Node, monkeypatch: pytest.MonkeyPatch, kind: object) -> None:
    """ipam.type is a bare name: code 7, and the program beside CNI_PATH has not run."""
    evil, directory = node.directory / "evil", node.directory / "bin"
    directory.mkdir()
    evil.write_text(f"#!/bin/sh\ntouch {node.directory}/ran\n")
    evil.chmod(0o755)
    answers = Answers(node, monkeypatch)
    for verb in ("ADD", "DEL", "CHECK", "GC", "STATUS"):
        answer = answers(verb, node.config("bridge", ipam={"type": kind}), node.pod(verb), PATH=str(directory))
        if verb != "CHECK":  # which misses the result before
            assert (answer["code"], "ipam.type" in answer["msg"]) == (7, True), answer
    with pytest.raises(InvalidArgument, match="type"):
        conf.parse({"cniVersion": "1.1.0", "name": "net", "plugins": [{"type": kind}]}, "net.conflist")
    assert not (node.directory / "ran").exists()


@backends
def test_cve_2025_67499_a_mapped_port_of_another_machine_is_that_machines(mapped: Mapped) -> None:
    """The pod reaches port 8080 of the outside, not the pod that has this port of the node."""
    mapped.add(WEB)
    server = (OUTSIDE[4], 8080)
    assert talk("tcp", mapped.pod, server, mapped.outside, server) == POD[4]
    assert mapped.seen(mapped.outside, NODE[4]) == OUTSIDE[4]
