"""bandwidth on the kernel: TCP really runs as fast as configured and no faster, CHECK sees changes, nothing stays."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cni_plugins.meta import bandwidth
from runtime_core.errors import FailedPrecondition, InvalidArgument, NotFound, TrivetError
from runtime_core.kernel import netlink
from runtime_core.network import traffic
from runtime_core.network.link_messages import alias_message, link_message
from runtime_core.network.links import Links
from runtime_core.testing import namespaces
from runtime_core.testing.tools import require_program
from tests.kernel.cni.meta_pod import HOST, POD, Pod, connected_pod, link_of_node, links_of_node, seconds_to_send

#: bytes a second, and what may come at once
_IN, _OUT, _BURST = 1_000_000, 2_000_000, 100_000
_LIMITS = {"ingressRate": _IN * 8, "ingressBurst": _BURST * 8, "egressRate": _OUT * 8, "egressBurst": _BURST * 8}
_SIZE = 1_000_000
#: htb lets one packet go on credit, which may be many that the kernel has put together
_LARGEST_PACKET = 1 << 16


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    with connected_pod(tmp_path) as pod:
        yield pod


def _qdiscs(name: str = "vethpod") -> list[str]:
    link = link_of_node(name)
    assert link is not None
    with netlink.Socket() as sock:
        found = [traffic.root_qdisc(sock, link.index)[0], traffic.incoming_qdisc(sock, link.index)]
    return [kind for kind in found if kind]


def _rates(pod: Pod, to: str, size: int = _SIZE, *, in_advance: int = _BURST) -> tuple[float, float]:
    """(the least that the rate can have been, the most): of all bytes, headers and the ends' own pauses left out, and of
    those that came after what may come at once."""
    elapsed = seconds_to_send(pod, to, size)
    return (size - in_advance) / elapsed, size / elapsed


@pytest.mark.parametrize(("to", "rate"), [(POD[0], _IN), (HOST[0], _OUT), (POD[1], _IN), (HOST[1], _OUT)])
def test_tcp_is_as_fast_as_it_may_be(pod: Pod, to: str, rate: int) -> None:
    """Into the pod and out of it, IPv4 and IPv6; packets' headers count."""
    bandwidth.add(pod.request(pod.previous(), **_LIMITS))
    least, most = _rates(pod, to)
    assert least <= rate
    assert most > rate * 0.6


@pytest.mark.parametrize(
    ("subnets", "limited"),
    [
        ({"unshapedSubnets": ["10.9.0.0/24"]}, {POD[1], HOST[1]}),
        ({"unshapedSubnets": ["fd09::/64", "192.0.2.0/24"]}, {POD[0], HOST[0]}),
        ({"shapedSubnets": ["fd09::/64"]}, {POD[1], HOST[1]}),
        ({"shapedSubnets": ["0.0.0.0/0"]}, {POD[0], HOST[0]}),
    ],
)
def test_subnets_of_the_far_end_are_left_alone_or_chosen(pod: Pod, subnets: dict[str, Any], limited: set[str]) -> None:
    config = {**_LIMITS, **subnets}
    result = bandwidth.add(pod.request(pod.previous(), **config))
    bandwidth.check(pod.request(result, **config))
    for to, rate in ((POD[0], _IN), (HOST[0], _OUT), (POD[1], _IN), (HOST[1], _OUT)):
        if to in limited:
            assert _rates(pod, to, in_advance=_BURST + _LARGEST_PACKET)[0] <= rate
        else:
            assert _rates(pod, to, 20_000_000)[0] > rate * 2


@pytest.mark.parametrize(
    ("config", "qdiscs", "devices"),
    [
        ({"ingressRate": 8000, "ingressBurst": 80000}, ["tbf"], 0),
        ({"egressRate": 8000, "egressBurst": 80000}, ["ingress"], 1),
        ({"runtimeConfig": {"bandwidth": _LIMITS}}, ["tbf", "ingress"], 1),
        ({"ingressRate": 0, "egressRate": 0}, [], 0),
        ({}, [], 0),
    ],
)
def test_only_what_is_limited_is_made(pod: Pod, config: dict[str, Any], qdiscs: list[str], devices: int) -> None:
    """The ifb is listed last in the result; DEL, with or without prevResult, leaves the veth as it was. Twice."""
    previous = pod.previous()
    result = bandwidth.add(pod.request(previous, **config))
    assert _qdiscs() == qdiscs
    assert result["interfaces"][:2] == previous["interfaces"]
    assert [one["name"] for one in result["interfaces"][2:]] == [name for name in links_of_node() if name.startswith("bwp")]
    assert len(result["interfaces"]) == 2 + devices
    bandwidth.check(pod.request(result, **config))
    for _time in range(2):
        bandwidth.delete(pod.request(result, **config))
        assert (_qdiscs(), links_of_node()) == ([], ["vethpod"])


def test_a_burst_smaller_than_a_packet_does_not_cut_the_container_off(pod: Pod) -> None:
    config = {"ingressRate": 8_000_000, "ingressBurst": 8}
    result = bandwidth.add(pod.request(pod.previous(), **config))
    bandwidth.check(pod.request(result, **config))
    assert seconds_to_send(pod, POD[0], 200_000) >= (200_000 - 1514) / _IN


def test_a_burst_larger_than_the_kernel_keeps_still_checks_out(pod: Pod) -> None:
    """As Kubernetes' runtimes set it: 2 Gbit."""
    config = {"ingressRate": 1_000_000, "ingressBurst": (1 << 31) - 1, "egressRate": 1_000_000, "egressBurst": (1 << 31) - 1}
    result = bandwidth.add(pod.request(pod.previous(), **config))
    bandwidth.check(pod.request(result, **config))


@pytest.mark.parametrize(
    ("command", "error", "message"),
    [
        ("tc qdisc del dev vethpod root", FailedPrecondition, "vethpod has the qdisc of its kind, not tbf"),
        (
            "tc qdisc replace dev vethpod root handle 1: tbf rate 9mbit burst 100kb limit 200kb",
            FailedPrecondition,
            "vethpod has the rate",
        ),
        ("tc qdisc del dev vethpod ingress", FailedPrecondition, "what comes in by vethpod does not go to bwp"),
        ("tc filter del dev vethpod parent ffff:", FailedPrecondition, "what comes in by vethpod does not go to bwp"),
        ("ip link del {ifb}", NotFound, "is missing or down"),
        ("ip link set {ifb} down", NotFound, "is missing or down"),
        ("tc qdisc del dev {ifb} root", FailedPrecondition, "not tbf"),
        ("ip link del vethpod", NotFound, "the container has no interface eth0"),
    ],
)
def test_check_sees_what_changed(pod: Pod, command: str, error: type[TrivetError], message: str) -> None:
    """And DEL takes down what is left."""
    require_program(command.split()[0], "iproute2")
    result = bandwidth.add(pod.request(pod.previous(), **_LIMITS))
    subprocess.run(command.format(ifb=bandwidth.device_name(pod.request())).split(), check=True)
    with pytest.raises(error, match=message):
        bandwidth.check(pod.request(result, **_LIMITS))
    bandwidth.delete(pod.request(result, **_LIMITS))
    assert [name for name in links_of_node() if name != "vethpod"] == []


@pytest.mark.parametrize(
    "command", ["tc filter del dev {ifb} parent 1: pref 16", "tc class change dev {ifb} parent 1: classid 1:30 htb rate 9mbit"]
)
def test_check_sees_that_classes_changed(pod: Pod, command: str) -> None:
    require_program("tc", "iproute2")
    config = {**_LIMITS, "unshapedSubnets": ["10.9.0.0/24", "fd09::/64"]}
    result = bandwidth.add(pod.request(pod.previous(), **config))
    subprocess.run(command.format(ifb=bandwidth.device_name(pod.request())).split(), check=True)
    with pytest.raises(FailedPrecondition, match=r"chooses packets of other networks|has the rate"):
        bandwidth.check(pod.request(result, **config))


@pytest.mark.parametrize("netns", ["", "/nowhere", "plain"])
@pytest.mark.parametrize("config", [_LIMITS, {"ingressRate": "bad"}])
def test_del_without_a_namespace(pod: Pod, netns: str, config: dict[str, Any]) -> None:
    """The ifb goes, whatever is missing or bad by now, and no file appears."""
    bandwidth.add(pod.request(pod.previous(), **_LIMITS))
    pod.close()
    request = pod.request(**config)
    plain = pod.directory / "plain"
    plain.touch()
    request.netns = str(plain) if netns == "plain" else netns
    for _time in range(2):
        bandwidth.delete(request)
        assert [name for name in links_of_node() if name.startswith("bwp")] == []
    assert not Path("/nowhere").exists()


def test_gc_removes_the_devices_of_nobody(pod: Pod) -> None:
    """Of its own network; another's, other links and, without a list, all of them stay."""
    result = bandwidth.add(pod.request(pod.previous(), **_LIMITS))
    stale, foreign = pod.request(container_id="c2"), pod.request(name="netx")
    with netlink.Socket() as sock:
        links = Links(sock)
        for request, name in ((stale, "bwpstale"), (foreign, "bwpforeign")):
            alias = bandwidth._alias(request.network, request.container_id, request.interface)
            links.create(name, link_message("ifb", name, []), alias_message(alias, name=name))
        links.create("ifbmine", link_message("ifb", "ifbmine", []))
    ours = bandwidth.device_name(pod.request())
    bandwidth.gc(pod.request())
    assert links_of_node() == sorted([ours, "bwpforeign", "bwpstale", "ifbmine", "vethpod"])
    bandwidth.gc(pod.request(**{"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]}))
    assert links_of_node() == sorted([ours, "bwpforeign", "ifbmine", "vethpod"])
    bandwidth.check(pod.request(result, **_LIMITS))
    bandwidth.gc(pod.request(**{"cni.dev/valid-attachments": []}))
    assert links_of_node() == ["bwpforeign", "ifbmine", "vethpod"]


def test_gc_knows_names_too_long_for_an_alias(pod: Pod) -> None:
    network = "n" * 250
    bandwidth.add(pod.request(pod.previous(), name=network, **_LIMITS))
    valid = [{"containerID": "c1", "ifname": "eth0"}]
    bandwidth.gc(pod.request(name=network, **{"cni.dev/valid-attachments": valid}))
    assert len(links_of_node()) == 2
    bandwidth.gc(pod.request(name=network, **{"cni.dev/valid-attachments": []}))
    assert links_of_node() == ["vethpod"]


@pytest.mark.parametrize(
    "command",
    ["tc qdisc add dev vethpod clsact", "tc qdisc add dev vethpod root handle 5: tbf rate 9mbit burst 100kb limit 200kb"],
)
def test_another_programs_qdisc_is_not_touched(pod: Pod, command: str) -> None:
    """ADD is refused, and leaves neither device nor qdisc of its own."""
    require_program("tc", "iproute2")
    subprocess.run(command.split(), check=True)
    before = _qdiscs()
    with pytest.raises(FailedPrecondition, match=r"^prevResult\.interfaces: vethpod has the qdisc (clsact|tbf) already"):
        bandwidth.add(pod.request(pod.previous(), **_LIMITS))
    assert (_qdiscs(), links_of_node()) == (before, ["vethpod"])


def test_what_a_killed_add_left_is_replaced(pod: Pod) -> None:
    name = bandwidth.device_name(pod.request())
    with netlink.Socket() as sock:
        Links(sock).create(name, link_message("ifb", name, []))
    bandwidth.check(pod.request(bandwidth.add(pod.request(pod.previous(), **_LIMITS)), **_LIMITS))


@pytest.mark.parametrize(
    ("interfaces", "error", "message"),
    [
        ([], NotFound, "none is the host's end of eth0"),
        ([{"name": "other"}], NotFound, "none is the host's end of eth0"),
        ([{"name": "vethpod", "sandbox": "/n"}], NotFound, "none is the host's end of eth0"),
    ],
)
def test_a_result_without_the_hosts_end(pod: Pod, interfaces: list[Any], error: type[TrivetError], message: str) -> None:
    with pytest.raises(error, match=message):
        bandwidth.add(pod.request({**pod.previous(), "interfaces": interfaces}, **_LIMITS))
    assert links_of_node() == ["vethpod"]


def test_an_interface_that_is_no_veth(tmp_path: Path) -> None:
    """And the node's own namespace is nobody's container."""
    with namespaces.node_namespace():
        pod = Pod(tmp_path)
        previous: dict[str, Any] = {"interfaces": [], "ips": [], "routes": [], "dns": {}}
        with pod.inside() as links:
            links.create("eth0", link_message("ifb", "eth0", []))
        with pytest.raises(FailedPrecondition, match="eth0 of the container is a ifb, not a veth"):
            bandwidth.add(pod.request(previous, **_LIMITS))
        request = pod.request(previous, **_LIMITS)
        request.netns = "/proc/thread-self/ns/net"
        with pytest.raises(InvalidArgument, match="is the network namespace of the node itself"):
            bandwidth.add(request)
        pod.close()


@pytest.mark.parametrize("config", [_LIMITS, {**_LIMITS, "shapedSubnets": ["10.0.0.0/8", "fd00::/8"]}])
def test_status_tries_it_out_and_leaves_nothing(pod: Pod, config: dict[str, Any]) -> None:
    before = links_of_node()
    bandwidth.status(pod.request(**config))
    assert links_of_node() == before
    with pytest.raises(InvalidArgument, match="^ingressRate"):
        bandwidth.status(pod.request(ingressRate=-1))


def test_status_says_what_the_kernel_lacks(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bandwidth, "link_message", lambda _kind, name, data, **more: link_message("nosuch", name, data, **more))
    with pytest.raises(NotFound, match="^the kernel has no links of kind ifb"):
        bandwidth.status(pod.request(**_LIMITS))
