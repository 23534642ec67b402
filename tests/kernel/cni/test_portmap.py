"""The plugin portmap behind a real bridge: every way to a port, every option, and what DEL, CHECK and GC know of it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime_core.errors import FailedPrecondition, InvalidArgument, NotFound, TrivetError
from runtime_core.testing.tools import need
from tests.kernel.cni import main_node
from tests.kernel.cni.main_node import Node, on, run, sysctl, uplink
from tests.kernel.cni.port_traffic import filters, heard, talk

_OUTSIDE = {4: "198.51.100.2", 6: "2001:db8::2"}
_NODE = {4: "198.51.100.1", 6: "2001:db8::1"}
_POD = {4: "10.77.0.2", 6: "fd77::2"}
_GATEWAY = {4: "10.77.0.1", 6: "fd77::1"}
_WEB = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
_DNS = {"hostPort": 8053, "containerPort": 53, "protocol": "udp"}
backends = pytest.mark.parametrize("backend", ["nftables", "iptables"])


class Mapped:
    """A pod on a bridge of the node, which has an uplink, and its port maps."""

    def __init__(self, node: Node, backend: str) -> None:
        if backend == "iptables":
            need("iptables", "iptables")
        self.node, self.backend = node, backend
        self.outside, self.pod = node.pod("outside"), node.pod("pod")
        uplink(self.outside)
        # hairpinMode because of br_netfilter, which leads a frame back to where it came from without the node's routing
        self.bridge = node.config("bridge", bridge="cnit0", isDefaultGateway=True, hairpinMode=True)
        self.result = node.call("ADD", self.bridge, self.pod)

    def config(self, *ports: dict[str, Any], **more: Any) -> dict[str, Any]:
        made = {
            "cniVersion": "1.1.0", "name": "net", "type": "portmap", "backend": self.backend,
            "runtimeConfig": {"portMappings": list(ports)}, "prevResult": self.result, **more,
        }  # fmt: skip
        return {key: value for key, value in made.items() if value is not None}

    def add(self, *ports: dict[str, Any], **more: Any) -> dict[str, Any]:
        """The configuration, after ADD."""
        config = self.config(*ports, **more)
        self.node.call("ADD", config, self.pod)
        return config

    def seen(self, origin: Path | None, address: str, port: dict[str, Any] = _WEB) -> str | None:
        """By the pod, when `origin` talks to the port at `address`."""
        server = (_POD[6 if ":" in address else 4], port["containerPort"])
        return talk(port["protocol"], origin, (address, port["hostPort"]), self.pod, server)


@pytest.fixture
def mapped(tmp_path: Path, backend: str) -> Iterator[Mapped]:
    with main_node.made(tmp_path) as node:
        yield Mapped(node, backend)


@backends
@pytest.mark.parametrize("port", [_WEB, _DNS], ids=["tcp", "udp"])
def test_every_way_to_a_port(mapped: Mapped, port: dict[str, Any]) -> None:
    """From outside, from the node by its address and by a loopback address, from the pod itself and from its neighbour;
    IPv4 and IPv6; nobody else's port is touched; and after DEL nothing is left."""
    neighbour = mapped.node.pod("neighbour")
    mapped.node.call("ADD", mapped.bridge, neighbour, container_id="c2")
    config = mapped.add(port)
    for version in (4, 6):
        assert mapped.seen(mapped.outside, _NODE[version], port) == _OUTSIDE[version]
        assert mapped.seen(None, _NODE[version], port) is not None
        assert mapped.seen(mapped.pod, _NODE[version], port) == _GATEWAY[version]
        assert mapped.seen(neighbour, _NODE[version], port) == _GATEWAY[version]
        elsewhere = (_OUTSIDE[version], port["hostPort"])
        assert talk(port["protocol"], mapped.pod, elsewhere, mapped.outside, elsewhere) == _POD[version]
    assert mapped.seen(None, "127.0.0.1", port) == _GATEWAY[4]
    mapped.node.call("CHECK", config, mapped.pod)
    mapped.node.call("DEL", config, mapped.pod)
    assert mapped.seen(mapped.outside, _NODE[4], port) is None
    assert filters() == ""


@backends
def test_with_masquerading_by_bridge(mapped: Mapped) -> None:
    """ipMasq keeps what stays in the network as it is; the pod's way to its own port is masqueraded all the same."""
    pod = mapped.node.pod("hidden")
    result = mapped.node.call("ADD", {**mapped.bridge, "ipMasq": True, "ipMasqBackend": mapped.backend}, pod, container_id="c2")
    config = mapped.config(_WEB, prevResult=result)
    mapped.node.call("ADD", config, pod, container_id="c2")
    assert talk("tcp", pod, (_NODE[4], 8080), pod, ("10.77.0.3", 80)) == _GATEWAY[4]
    assert talk("tcp", mapped.outside, (_NODE[4], 8080), pod, ("10.77.0.3", 80)) == _OUTSIDE[4]
    assert talk("tcp", pod, (_OUTSIDE[4], 9), mapped.outside, (_OUTSIDE[4], 9)) == _NODE[4]


@backends
def test_from_the_pod_itself_without_bridge_netfilter(mapped: Mapped) -> None:
    """Then the way back is by the node, and needs no hairpinMode."""
    switches = [Path(f"/proc/sys/net/bridge/bridge-nf-call-{name}") for name in ("iptables", "ip6tables")]
    for switch in switches:
        if switch.exists():
            switch.write_text("0")
    pod = mapped.node.pod("plain")
    result = mapped.node.call("ADD", {**mapped.bridge, "hairpinMode": False}, pod, container_id="c2")
    mapped.node.call("ADD", mapped.config(_WEB, prevResult=result), pod, container_id="c2")
    assert talk("tcp", pod, (_NODE[4], 8080), pod, ("10.77.0.3", 80)) == _GATEWAY[4]
    assert talk("tcp", pod, (_NODE[6], 8080), pod, ("fd77::3", 80)) == _GATEWAY[6]


@backends
def test_the_earlier_result_passes_through(mapped: Mapped) -> None:
    """As it is, also where no port is mapped; in an old version's shape for an old configuration."""
    for ports in ([_WEB], [{**_WEB, "hostPort": 0}], []):
        assert mapped.node.call("ADD", mapped.config(*ports), mapped.pod) == mapped.result
    old = {"cniVersion": "0.2.0", "ip4": {"ip": "10.77.0.2/24", "gateway": "10.77.0.1"}, "dns": {}}
    assert mapped.node.call("ADD", mapped.config(_WEB, cniVersion="0.2.0", prevResult=old), mapped.pod) == old


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
    mapped.add(_WEB, **more)
    for version in (4, 6):
        hidden = {"gateway": _GATEWAY, "outside": _OUTSIDE}[expected][version]
        assert mapped.seen(mapped.outside, _NODE[version]) == hidden


@backends
def test_host_ip(mapped: Mapped) -> None:
    """A port of one address is not another's; all of a family is all of it, and nothing of the other family."""
    mapped.add(
        {**_WEB, "hostIP": _NODE[4]}, {**_WEB, "hostPort": 8081, "hostIP": "0.0.0.0"}, {**_WEB, "hostPort": 8082, "hostIP": "::"}
    )
    assert mapped.seen(mapped.outside, _NODE[4]) == _OUTSIDE[4]
    assert mapped.seen(None, "127.0.0.1") is None
    assert mapped.seen(mapped.outside, _NODE[6]) is None
    ways = [(8081, 4), (8081, 6), (8082, 4), (8082, 6)]
    seen = [mapped.seen(mapped.outside, _NODE[version], {**_WEB, "hostPort": port}) for port, version in ways]
    assert seen == [_OUTSIDE[4], None, None, _OUTSIDE[6]]


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
    config = mapped.add(_WEB, conditionsV4=v4, conditionsV6=v6)
    mapped.node.call("CHECK", config, mapped.pod)
    for version in (4, 6):
        assert mapped.seen(mapped.outside, _NODE[version]) == _OUTSIDE[version]
        assert mapped.seen(mapped.pod, _NODE[version]) is None
    mapped.node.call("DEL", {**config, "conditionsV4": None, "conditionsV6": []}, mapped.pod)
    assert filters() == ""


@pytest.mark.parametrize("backend", ["iptables"])
@pytest.mark.parametrize("named", [True, False])
def test_external_set_mark_chain(mapped: Mapped, named: bool) -> None:
    """Somebody else's chain marks and masquerades; the option alone chooses iptables; without the chain ADD says so."""
    config = mapped.config(_WEB, externalSetMarkChain="KUBE-MARK-MASQ", backend="iptables" if named else None)
    with pytest.raises(FailedPrecondition, match="externalSetMarkChain: table nat has no chain KUBE-MARK-MASQ"):
        mapped.node.call("ADD", config, mapped.pod)
    for program in ("iptables", "ip6tables"):
        run(program, "-t", "nat", "-N", "KUBE-MARK-MASQ")
        run(program, "-t", "nat", "-A", "KUBE-MARK-MASQ", "-j", "MARK", "--set-xmark", "0x4000/0x4000")
        run(program, "-t", "nat", "-A", "POSTROUTING", "-m", "mark", "--mark", "0x4000/0x4000", "-j", "MASQUERADE")
    mapped.node.call("ADD", config, mapped.pod)
    mapped.node.call("CHECK", config, mapped.pod)
    assert mapped.seen(mapped.pod, _NODE[4]) == _GATEWAY[4]
    mapped.node.call("DEL", config, mapped.pod)
    assert "TRIVET" not in run("iptables-save") + run("ip6tables-save")


@pytest.mark.parametrize("backend", ["iptables"])
def test_rules_of_services_come_first(mapped: Mapped) -> None:
    """Ours are appended, never put before what is there (CVE-2019-9946)."""
    service = ["-d", _NODE[4], "-p", "tcp", "--dport", "8080", "-j", "DNAT", "--to-destination", "198.51.100.2:7"]
    run("iptables", "-t", "nat", "-A", "PREROUTING", *service)
    mapped.add(_WEB)
    assert talk("tcp", mapped.pod, (_NODE[4], 8080), mapped.outside, (_OUTSIDE[4], 7)) == _POD[4]
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
        first.bind((_POD[4], 53))
        second.bind(("10.77.0.3", 53))
        sender.connect((_NODE[4], 8053))
        assert not heard(first, sender, b"before")
        config = mapped.add(_DNS)
        assert heard(first, sender, b"mapped")
        mapped.node.call("DEL", config, mapped.pod)
        assert not heard(first, sender, b"after")
        mapped.node.call("ADD", mapped.config(_DNS, prevResult=result), second_pod, container_id="c2")
        assert heard(second, sender, b"next")


@backends
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"prevResult": None},
        {"runtimeConfig": {}},
        {"backend": None},
        {"backend": "bogus"},
        {"name": "renamed"},
        {"markMasqBit": 99, "snat": "x", "conditionsV4": "x", "runtimeConfig": {"portMappings": [5]}},
    ],
)
def test_del_whatever_has_become_of_the_configuration(mapped: Mapped, change: dict[str, Any]) -> None:
    """Nothing is left, also without the namespace; twice."""
    config = {key: value for key, value in {**mapped.add(_WEB, _DNS, conditionsV4=None), **change}.items() if value is not None}
    assert "8080" in filters() or "trivet_hostports" in filters()
    for _time in range(2):
        mapped.node.call("DEL", config, "/nowhere")
        assert filters() == ""


@backends
def test_gc_keeps_the_named(mapped: Mapped) -> None:
    """Of its own network; without the list, everybody."""
    mapped.add(_WEB)
    second = mapped.node.pod("second")
    result = mapped.node.call("ADD", mapped.bridge, second, container_id="c2")
    for name, container_id, port in (("net", "stale", 8081), ("other", "theirs", 8082)):
        config = mapped.config({**_WEB, "hostPort": port}, name=name, prevResult=result)
        mapped.node.call("ADD", config, second, container_id=container_id)
    before = filters()
    mapped.node.call("GC", mapped.config())
    assert filters() == before
    mapped.node.call("GC", mapped.config(**{"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]}))
    mapped.node.call("CHECK", mapped.config(_WEB), mapped.pod)
    assert talk("tcp", mapped.outside, (_NODE[4], 8082), second, ("10.77.0.3", 80)) == _OUTSIDE[4]
    assert talk("tcp", mapped.outside, (_NODE[4], 8081), second, ("10.77.0.3", 80)) is None


@pytest.mark.parametrize(
    ("backend", "break_"),
    [
        ("nftables", ["nft", "delete", "table", "ip", "trivet_hostports"]),
        ("nftables", ["nft", "delete", "table", "ip6", "trivet_hostports"]),
        ("nftables", ["nft", "flush", "map", "ip", "trivet_hostports", "ports-any"]),
        ("nftables", ["nft", "flush", "set", "ip", "trivet_hostports", "mark13-any"]),
        ("nftables", ["nft", "flush", "chain", "ip", "trivet_hostports", "ports-prerouting"]),
        ("nftables", ["nft", "flush", "ruleset"]),
        ("iptables", ["iptables", "-t", "nat", "-F", "PREROUTING"]),
        ("iptables", ["iptables", "-t", "nat", "-F", "OUTPUT"]),
        ("iptables", ["ip6tables", "-t", "nat", "-F", "POSTROUTING"]),
        ("iptables", ["iptables", "-t", "nat", "-F", "TRIVET-HOSTPORTS"]),
        ("iptables", ["iptables", "-t", "nat", "-F"]),
        ("iptables", ["iptables", "-t", "raw", "-F"]),
    ],
)
def test_check_sees_what_is_broken(mapped: Mapped, break_: list[str]) -> None:
    """ADD mends it; and DEL takes down what is left of it."""
    config = mapped.add(_WEB)
    mapped.node.call("CHECK", config, mapped.pod)
    run(*break_)
    with pytest.raises(FailedPrecondition, match="of the port maps is gone"):
        mapped.node.call("CHECK", config, mapped.pod)
    mapped.node.call("ADD", config, mapped.pod)
    mapped.node.call("CHECK", config, mapped.pod)
    run(*break_)
    mapped.node.call("DEL", config, mapped.pod)
    assert filters() == ""


@pytest.mark.parametrize(
    ("backend", "break_"),
    [
        ("nftables", ["nft", "flush", "map", "ip", "trivet_hostports", "ports-any"]),
        ("nftables", ["nft", "flush", "set", "ip6", "trivet_hostports", "masq13-64-near"]),
        ("nftables", ["nft", "flush", "chain", "ip", "trivet_hostports", "ports-prerouting"]),
        ("nftables", ["nft", "delete", "chain", "ip", "trivet_hostports", "local-guard"]),
        ("iptables", ["iptables", "-t", "nat", "-F", "PREROUTING"]),
        ("iptables", ["iptables", "-t", "nat", "-F", "POSTROUTING"]),
        ("iptables", ["iptables", "-t", "nat", "-F", "TRIVET-POSTROUTING"]),
        ("iptables", ["iptables", "-t", "raw", "-F"]),
    ],
)
def test_gc_mends(mapped: Mapped, break_: list[str]) -> None:
    """What is left tells what there was."""
    config = mapped.add(_WEB)
    run(*break_)
    with pytest.raises(FailedPrecondition):
        mapped.node.call("CHECK", config, mapped.pod)
    mapped.node.call("GC", {**config, "cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]})
    mapped.node.call("CHECK", config, mapped.pod)
    assert mapped.seen(mapped.outside, _NODE[4]) == _OUTSIDE[4]
    mapped.node.call("DEL", config, mapped.pod)
    assert filters() == ""


@pytest.mark.parametrize("backend", ["nftables"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backend": "bogus"}, "backend: 'bogus' is not one of iptables, nftables"),
        ({"backend": 5}, "backend: 5 is not a str"),
        ({"snat": "yes"}, "snat: 'yes' is not a bool"),
        ({"masqAll": 1}, "masqAll: 1 is not a bool"),
        ({"markMasqBit": 32}, "markMasqBit: 32 is not a number from 0 to 31"),
        ({"markMasqBit": 3, "externalSetMarkChain": "X"}, "markMasqBit: cannot be set together with externalSetMarkChain"),
        ({"externalSetMarkChain": "X"}, "externalSetMarkChain: only the iptables backend"),
        ({"externalSetMarkChain": "A B", "backend": "iptables"}, "externalSetMarkChain: 'A B' is not the name of a chain"),
        ({"conditionsV4": "x"}, "conditionsV4: 'x' is not a list of text"),
        ({"conditionsV4": ["-s", "10.0.0.1"]}, "conditionsV4: '-s 10.0.0.1': the nftables backend understands"),
        ({"conditionsV4": ["ip", "saddr", "10.0.0.1"], "backend": "iptables"}, "conditionsV4: 'ip' is not of iptables"),
        ({"conditionsV6": ["x\ny"]}, "conditionsV6: 'x\\ny' has a character that no condition needs"),
        ({"prevResult": None}, "prevResult is missing"),
        ({"prevResult": {"cniVersion": "1.1.0", "ips": []}}, "prevResult.ips: eth0 has no address"),
        ({"runtimeConfig": {"portMappings": "x"}}, "runtimeConfig.portMappings: 'x' is not a list"),
        ({"runtimeConfig": {"portMappings": ["x"]}}, "runtimeConfig.portMappings[0]: 'x' is not an object"),
        ({"port": {"hostIP": "x"}}, "runtimeConfig.portMappings[0].hostIP: 'x' is not an address"),
        ({"port": {"hostPort": 65536}}, "runtimeConfig.portMappings[0].hostPort: 65536 is not a number from 0 to 65535"),
        ({"port": {"hostPort": -1}}, "runtimeConfig.portMappings[0].hostPort: -1 is not"),
        ({"port": {"containerPort": 0}}, "runtimeConfig.portMappings[0].containerPort: 0 is not a number from 1 to 65535"),
        ({"port": {"protocol": "icmp"}}, "runtimeConfig.portMappings[0].protocol: 'icmp' is not one of tcp, udp, sctp"),
        ({"runtimeConfig": {"portMappings": [_WEB, {**_WEB, "containerPort": 81}]}}, "portMappings[1]: tcp port 8080 is mapped twice"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(mapped: Mapped, change: dict[str, Any], message: str) -> None:
    """With code 7, and nothing is made."""
    port = {**_WEB, **change.pop("port", {})} if "port" in (change := dict(change)) else _WEB
    with pytest.raises(InvalidArgument) as error:
        mapped.node.call("ADD", mapped.config(port, **change), mapped.pod)
    assert message in str(error.value)
    assert filters() == ""


@backends
def test_protocols_and_defaults(mapped: Mapped) -> None:
    """Their case does not matter, a missing one is tcp; one port said twice is one."""
    upper = {"hostPort": 8080, "containerPort": 80, "protocol": "TCP"}
    mapped.add(upper, {"hostPort": 8080, "containerPort": 80}, {**_WEB, "hostPort": 8083, "protocol": "SCTP"})
    assert mapped.seen(mapped.outside, _NODE[4]) == _OUTSIDE[4]


@backends
def test_status(mapped: Mapped, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ready where the backend answers; code 50's kind of error where iptables is not installed."""
    mapped.node.call("STATUS", mapped.config())
    with pytest.raises(InvalidArgument, match="backend"):
        mapped.node.call("STATUS", mapped.config(backend="bogus"))
    monkeypatch.setattr("plugins.packet_filters.ipt_command._MORE_PATH", "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")
    if mapped.backend == "iptables":
        with pytest.raises(NotFound, match="iptables is not installed"):
            mapped.node.call("STATUS", mapped.config())
        with pytest.raises(TrivetError, match="iptables is not installed") as error:
            mapped.node.call("ADD", mapped.config(_WEB), mapped.pod)
        assert getattr(error.value, "code", 0) == 50
    else:
        mapped.node.call("STATUS", mapped.config())
    mapped.node.call("DEL", mapped.config(_WEB), mapped.pod)


@pytest.mark.parametrize("backend", ["nftables"])
def test_loopback_of_the_node_is_not_the_pods(mapped: Mapped) -> None:
    """route_localnet lets the node's own connections out, and no pod's in (CVE-2020-8558)."""
    mapped.add(_WEB)
    assert sysctl(None, "ipv4/conf/cnit0/route_localnet") == "1"
    run("ip", "address", "del", "127.0.0.1/8", "dev", "lo", place=mapped.pod)
    run("ip", "route", "add", "127.0.0.1", "via", _GATEWAY[4], "src", _POD[4], place=mapped.pod)
    with on(mapped.pod):
        Path("/proc/sys/net/ipv4/conf/all/route_localnet").write_text("1")
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sender, listening:
        listening.settimeout(20)
        listening.bind(("0.0.0.0", 9999))
        sender.sendto(b"sneaks", ("127.0.0.1", 9999))
        sender.sendto(b"comes", (_GATEWAY[4], 9999))
        assert listening.recv(16) == b"comes"
        run("nft", "flush", "chain", "ip", "trivet_hostports", "local-guard")
        sender.sendto(b"sneaks", ("127.0.0.1", 9999))
        assert listening.recv(16) == b"sneaks"
