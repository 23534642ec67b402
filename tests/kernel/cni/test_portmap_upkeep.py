"""The plugin portmap when something has changed: DEL, CHECK and GC; wrong configurations; STATUS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime_core.errors import FailedPrecondition, InvalidArgument, NotFound, TrivetError
from tests.kernel.cni import mapped_ports
from tests.kernel.cni.main_node import run
from tests.kernel.cni.mapped_ports import DNS, NODE, OUTSIDE, WEB, Mapped, backends
from tests.kernel.cni.port_traffic import filters, talk


@pytest.fixture
def mapped(tmp_path: Path, backend: str) -> Iterator[Mapped]:
    with mapped_ports.made(tmp_path, backend) as made:
        yield made


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
    config = {key: value for key, value in {**mapped.add(WEB, DNS, conditionsV4=None), **change}.items() if value is not None}
    assert "8080" in filters() or "trivet_hostports" in filters()
    for _time in range(2):
        mapped.node.call("DEL", config, "/nowhere")
        assert filters() == ""


@backends
def test_gc_keeps_the_named(mapped: Mapped) -> None:
    """Of its own network; without the list, everybody."""
    mapped.add(WEB)
    second = mapped.node.pod("second")
    result = mapped.node.call("ADD", mapped.bridge, second, container_id="c2")
    for name, container_id, port in (("net", "stale", 8081), ("other", "theirs", 8082)):
        config = mapped.config({**WEB, "hostPort": port}, name=name, prevResult=result)
        mapped.node.call("ADD", config, second, container_id=container_id)
    before = filters()
    mapped.node.call("GC", mapped.config())
    assert filters() == before
    mapped.node.call("GC", mapped.config(**{"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]}))
    mapped.node.call("CHECK", mapped.config(WEB), mapped.pod)
    assert talk("tcp", mapped.outside, (NODE[4], 8082), second, ("10.77.0.3", 80)) == OUTSIDE[4]
    assert talk("tcp", mapped.outside, (NODE[4], 8081), second, ("10.77.0.3", 80)) is None


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
    config = mapped.add(WEB)
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
    config = mapped.add(WEB)
    run(*break_)
    with pytest.raises(FailedPrecondition):
        mapped.node.call("CHECK", config, mapped.pod)
    mapped.node.call("GC", {**config, "cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]})
    mapped.node.call("CHECK", config, mapped.pod)
    assert mapped.seen(mapped.outside, NODE[4]) == OUTSIDE[4]
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
        ({"conditionsV4": ["-s", "10.0.0.1"]}, "conditionsV4: '-s 10.0.0.1': nft says: "),
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
        ({"runtimeConfig": {"portMappings": [WEB, {**WEB, "containerPort": 81}]}}, "portMappings[1]: tcp port 8080 is mapped twice"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(mapped: Mapped, change: dict[str, Any], message: str) -> None:
    """With code 7, and nothing is made."""
    port = {**WEB, **change.pop("port", {})} if "port" in (change := dict(change)) else WEB
    with pytest.raises(InvalidArgument) as error:
        mapped.node.call("ADD", mapped.config(port, **change), mapped.pod)
    assert message in str(error.value)
    assert filters() == ""


@backends
def test_protocols_and_defaults(mapped: Mapped) -> None:
    """Their case does not matter, a missing one is tcp; one port said twice is one."""
    upper = {"hostPort": 8080, "containerPort": 80, "protocol": "TCP"}
    mapped.add(upper, {"hostPort": 8080, "containerPort": 80}, {**WEB, "hostPort": 8083, "protocol": "SCTP"})
    assert mapped.seen(mapped.outside, NODE[4]) == OUTSIDE[4]


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
            mapped.node.call("ADD", mapped.config(WEB), mapped.pod)
        assert getattr(error.value, "code", 0) == 50
    else:
        mapped.node.call("STATUS", mapped.config())
    mapped.node.call("DEL", mapped.config(WEB), mapped.pod)
