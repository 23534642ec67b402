"""The plugin portmap behind a real bridge: every way to a port, and every option, with traffic."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime_core.errors import FailedPrecondition
from tests.kernel.cni import mapped_ports
from tests.kernel.cni.main_node import on, run, sysctl
from tests.kernel.cni.mapped_ports import DNS, GATEWAY, NODE, OUTSIDE, POD, WEB, Mapped, backends
from tests.kernel.cni.port_traffic import filters, heard, talk


@pytest.fixture
def mapped(tmp_path: Path, backend: str) -> Iterator[Mapped]:
    with mapped_ports.made(tmp_path, backend) as made:
        yield made


@backends
@pytest.mark.parametrize("port", [WEB, DNS], ids=["tcp", "udp"])
def test_every_way_to_a_port(mapped: Mapped, port: dict[str, Any]) -> None:
    """From outside, from the node by its address and by a loopback address, from the pod itself and from its neighbour;
    IPv4 and IPv6; nobody else's port is touched; and after DEL nothing is left."""
    neighbour = mapped.node.pod("neighbour")
    mapped.node.call("ADD", mapped.bridge, neighbour, container_id="c2")
    config = mapped.add(port)
    for version in (4, 6):
        assert mapped.seen(mapped.outside, NODE[version], port) == OUTSIDE[version]
        assert mapped.seen(None, NODE[version], port) is not None
        assert mapped.seen(mapped.pod, NODE[version], port) == GATEWAY[version]
        assert mapped.seen(neighbour, NODE[version], port) == GATEWAY[version]
        elsewhere = (OUTSIDE[version], port["hostPort"])
        assert talk(port["protocol"], mapped.pod, elsewhere, mapped.outside, elsewhere) == POD[version]
    assert mapped.seen(None, "127.0.0.1", port) == GATEWAY[4]
    mapped.node.call("CHECK", config, mapped.pod)
    mapped.node.call("DEL", config, mapped.pod)
    assert mapped.seen(mapped.outside, NODE[4], port) is None
    assert filters() == ""


@backends
def test_with_masquerading_by_bridge(mapped: Mapped) -> None:
    """ipMasq keeps what stays in the network as it is; the pod's way to its own port is masqueraded all the same."""
    pod = mapped.node.pod("hidden")
    result = mapped.node.call("ADD", {**mapped.bridge, "ipMasq": True, "ipMasqBackend": mapped.backend}, pod, container_id="c2")
    config = mapped.config(WEB, prevResult=result)
    mapped.node.call("ADD", config, pod, container_id="c2")
    assert talk("tcp", pod, (NODE[4], 8080), pod, ("10.77.0.3", 80)) == GATEWAY[4]
    assert talk("tcp", mapped.outside, (NODE[4], 8080), pod, ("10.77.0.3", 80)) == OUTSIDE[4]
    assert talk("tcp", pod, (OUTSIDE[4], 9), mapped.outside, (OUTSIDE[4], 9)) == NODE[4]


@backends
def test_from_the_pod_itself_without_bridge_netfilter(mapped: Mapped) -> None:
    """Then the way back is by the node, and needs no hairpinMode."""
    switches = [Path(f"/proc/sys/net/bridge/bridge-nf-call-{name}") for name in ("iptables", "ip6tables")]
    for switch in switches:
        if switch.exists():
            switch.write_text("0")
    pod = mapped.node.pod("plain")
    result = mapped.node.call("ADD", {**mapped.bridge, "hairpinMode": False}, pod, container_id="c2")
    mapped.node.call("ADD", mapped.config(WEB, prevResult=result), pod, container_id="c2")
    assert talk("tcp", pod, (NODE[4], 8080), pod, ("10.77.0.3", 80)) == GATEWAY[4]
    assert talk("tcp", pod, (NODE[6], 8080), pod, ("fd77::3", 80)) == GATEWAY[6]


@backends
def test_the_earlier_result_passes_through(mapped: Mapped) -> None:
    """As it is, also where no port is mapped; in an old version's shape for an old configuration."""
    for ports in ([WEB], [{**WEB, "hostPort": 0}], []):
        assert mapped.node.call("ADD", mapped.config(*ports), mapped.pod) == mapped.result
    old = {"cniVersion": "0.2.0", "ip4": {"ip": "10.77.0.2/24", "gateway": "10.77.0.1"}, "dns": {}}
    assert mapped.node.call("ADD", mapped.config(WEB, cniVersion="0.2.0", prevResult=old), mapped.pod) == old


@backends
@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"masqAll": True}, "gateway"),
        ({"masqAll": True, "markMasqBit": 3}, "gateway"),
        ({"snat": False, "masqAll": True}, "outside"),
    ],
)
def test_whom_the_pod_sees(mapped: Mapped, more: dict[str, Any], expected: str) -> None:
    """masqAll hides everybody, by whatever mark; snat off hides nobody."""
    mapped.add(WEB, **more)
    for version in (4, 6):
        hidden = {"gateway": GATEWAY, "outside": OUTSIDE}[expected][version]
        assert mapped.seen(mapped.outside, NODE[version]) == hidden


@backends
def test_host_ip(mapped: Mapped) -> None:
    """A port of one address is not another's; all of a family is all of it, and nothing of the other family."""
    mapped.add(
        {**WEB, "hostIP": NODE[4]}, {**WEB, "hostPort": 8081, "hostIP": "0.0.0.0"}, {**WEB, "hostPort": 8082, "hostIP": "::"}
    )
    assert mapped.seen(mapped.outside, NODE[4]) == OUTSIDE[4]
    assert mapped.seen(None, "127.0.0.1") is None
    assert mapped.seen(mapped.outside, NODE[6]) is None
    ways = [(8081, 4), (8081, 6), (8082, 4), (8082, 6)]
    seen = [mapped.seen(mapped.outside, NODE[version], {**WEB, "hostPort": port}) for port, version in ways]
    assert seen == [OUTSIDE[4], None, None, OUTSIDE[6]]


@backends
def test_a_port_of_the_loopback_address(mapped: Mapped) -> None:
    """It is the node's own and nobody else's."""
    mapped.add({**WEB, "hostIP": "127.0.0.1"})
    assert mapped.seen(None, "127.0.0.1") == GATEWAY[4]
    assert mapped.seen(None, NODE[4]) is None
    assert mapped.seen(mapped.outside, NODE[4]) is None


@pytest.mark.parametrize(
    ("backend", "v4", "v6"),
    [
        ("nftables", ["ip", "saddr", "198.51.100.2"], ["ip6 saddr 2001:db8::2/128"]),
        ("iptables", ["-s", "198.51.100.2"], ["-s", "2001:db8::2/128"]),
        ("nftables", ["iifname", "up0"], ["iifname", "!=", "cnit0"]),
        ("iptables", ["-i", "up0"], ["!", "-i", "cnit0"]),
    ],
)
def test_conditions(mapped: Mapped, v4: list[str], v6: list[str]) -> None:
    """Who does not fulfil them does not find the port; DEL with other conditions takes it all away."""
    config = mapped.add(WEB, conditionsV4=v4, conditionsV6=v6)
    mapped.node.call("CHECK", config, mapped.pod)
    for version in (4, 6):
        assert mapped.seen(mapped.outside, NODE[version]) == OUTSIDE[version]
        assert mapped.seen(mapped.pod, NODE[version]) is None
    mapped.node.call("DEL", {**config, "conditionsV4": None, "conditionsV6": []}, mapped.pod)
    assert filters() == ""


@pytest.mark.parametrize("backend", ["iptables"])
@pytest.mark.parametrize("named", [True, False])
def test_external_set_mark_chain(mapped: Mapped, named: bool) -> None:
    """Somebody else's chain marks and masquerades; the option alone chooses iptables; without the chain ADD says so."""
    config = mapped.config(WEB, externalSetMarkChain="KUBE-MARK-MASQ", backend="iptables" if named else None)
    with pytest.raises(FailedPrecondition, match="externalSetMarkChain: table nat has no chain KUBE-MARK-MASQ"):
        mapped.node.call("ADD", config, mapped.pod)
    for program in ("iptables", "ip6tables"):
        run(program, "-t", "nat", "-N", "KUBE-MARK-MASQ")
        run(program, "-t", "nat", "-A", "KUBE-MARK-MASQ", "-j", "MARK", "--set-xmark", "0x4000/0x4000")
        run(program, "-t", "nat", "-A", "POSTROUTING", "-m", "mark", "--mark", "0x4000/0x4000", "-j", "MASQUERADE")
    mapped.node.call("ADD", config, mapped.pod)
    mapped.node.call("CHECK", config, mapped.pod)
    assert mapped.seen(mapped.pod, NODE[4]) == GATEWAY[4]
    mapped.node.call("DEL", config, mapped.pod)
    assert "TRIVET" not in run("iptables-save") + run("ip6tables-save")


@pytest.mark.parametrize("backend", ["iptables"])
def test_rules_of_services_come_first(mapped: Mapped) -> None:
    """Ours are appended, never put before what is there (CVE-2019-9946)."""
    service = ["-d", NODE[4], "-p", "tcp", "--dport", "8080", "-j", "DNAT", "--to-destination", "198.51.100.2:7"]
    run("iptables", "-t", "nat", "-A", "PREROUTING", *service)
    mapped.add(WEB)
    assert talk("tcp", mapped.pod, (NODE[4], 8080), mapped.outside, (OUTSIDE[4], 7)) == POD[4]
    chain = [line for line in run("iptables", "-t", "nat", "-S", "PREROUTING").splitlines() if line.startswith("-A")]
    assert "DNAT" in chain[0] and "TRIVET-HOSTPORTS" in chain[1]


@backends
def test_datagrams_that_were_on_their_way(mapped: Mapped) -> None:
    """Who keeps sending is led to the pod when it comes, is refused when it goes, and is led to the next one."""
    with on(mapped.pod):
        first = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    second_pod = mapped.node.pod("second")
    result = mapped.node.call("ADD", mapped.bridge, second_pod, container_id="c2")
    with on(second_pod):
        second = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with on(mapped.outside):
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with first, second, sender:
        first.bind((POD[4], 53))
        second.bind(("10.77.0.3", 53))
        sender.connect((NODE[4], 8053))
        assert not heard(first, sender, b"before")
        config = mapped.add(DNS)
        assert heard(first, sender, b"mapped")
        mapped.node.call("DEL", config, mapped.pod)
        assert not heard(first, sender, b"after")
        mapped.node.call("ADD", mapped.config(DNS, prevResult=result), second_pod, container_id="c2")
        assert heard(second, sender, b"next")


@pytest.mark.parametrize("backend", ["nftables"])
def test_loopback_of_the_node_is_not_the_pods(mapped: Mapped) -> None:
    """route_localnet lets the node's own connections out, and no pod's in (CVE-2020-8558)."""
    mapped.add(WEB)
    assert sysctl(None, "ipv4/conf/cnit0/route_localnet") == "1"
    run("ip", "address", "del", "127.0.0.1/8", "dev", "lo", place=mapped.pod)
    run("ip", "route", "add", "127.0.0.1", "via", GATEWAY[4], "src", POD[4], place=mapped.pod)
    with on(mapped.pod):
        Path("/proc/sys/net/ipv4/conf/all/route_localnet").write_text("1")
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sender, listening:
        listening.settimeout(20)
        listening.bind(("0.0.0.0", 9999))
        sender.sendto(b"sneaks", ("127.0.0.1", 9999))
        sender.sendto(b"comes", (GATEWAY[4], 9999))
        assert listening.recv(16) == b"comes"
        run("nft", "flush", "chain", "ip", "trivet_hostports", "local-guard")
        sender.sendto(b"sneaks", ("127.0.0.1", 9999))
        assert listening.recv(16) == b"sneaks"
