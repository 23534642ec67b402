"""The plugin firewall: what it lets pass and what it keeps apart, with traffic."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime_core.errors import FailedPrecondition, InvalidArgument
from tests.kernel.cni import guarded_pods
from tests.kernel.cni.guarded_pods import OUTSIDE, Guarded, backends
from tests.kernel.cni.main_node import on, run
from tests.kernel.cni.port_traffic import filters, talk


@pytest.fixture
def guarded(tmp_path: Path, backend: str) -> Iterator[Guarded]:
    with guarded_pods.made(tmp_path, backend) as made:
        yield made


@pytest.mark.parametrize("backend", ["iptables"])
def test_what_the_pod_sends_and_the_answers_pass(guarded: Guarded) -> None:
    """Though the node forwards nothing else, by its policy and by a last rule; connections from outside do not."""
    for program in ("iptables", "ip6tables"):
        run(program, "-A", "FORWARD", "-j", "REJECT", "--reject-with", _unreachable(program))
        run(program, "-P", "FORWARD", "DROP")
    config = guarded.pod("c1")
    for address in OUTSIDE:
        assert talk("tcp", guarded.places["c1"], (address, 7777), guarded.outside, (address, 7777)) is not None
    for address in guarded.addresses("c1"):
        assert talk("tcp", guarded.outside, (address, 7777), guarded.places["c1"], (address, 7777)) is None
    guarded.call("CHECK", config, "c1")
    guarded.call("DEL", config, "c1")
    assert filters() == ""


@pytest.mark.parametrize("backend", ["iptables"])
@pytest.mark.parametrize("name", ["", "MY-RULES"])
def test_the_administrator_has_the_first_word(guarded: Guarded, name: str) -> None:
    """In a chain of the given name, which stays when there is something in it."""
    chain = name or "CNI-ADMIN"
    config = guarded.pod("c1", iptablesAdminChainName=name or None)
    run("iptables", "-A", chain, "-d", OUTSIDE[0], "-p", "tcp", "--dport", "7777", "-j", "REJECT", "--reject-with", "tcp-reset")
    assert talk("tcp", guarded.places["c1"], (OUTSIDE[0], 7777), guarded.outside, (OUTSIDE[0], 7777)) is None
    assert talk("tcp", guarded.places["c1"], (OUTSIDE[0], 7778), guarded.outside, (OUTSIDE[0], 7778)) is not None
    guarded.call("DEL", config, "c1")
    assert filters() == ""
    assert f"-A {chain}" in run("iptables", "-S")
    assert f"-N {chain}" not in run("ip6tables", "-S")


@backends
@pytest.mark.parametrize(
    ("policy", "inside", "between"), [("open", True, True), ("same-bridge", True, False), ("isolated", False, False)]
)
def test_ingress_policy(guarded: Guarded, policy: str, inside: bool, between: bool) -> None:
    """open: everybody; same-bridge: not from another such bridge; isolated: not even from the same one. The outside is
    reached, and reaches the pods, under each."""
    needs_bridge_netfilter()
    config = guarded.pod("c1", ingressPolicy=policy)
    guarded.pod("c2", ingressPolicy=policy)
    guarded.pod("c3", "cnit1", ingressPolicy=policy)
    guarded.call("CHECK", config, "c1")
    ways = {"c2": inside, "c3": between}
    for name, expected in ways.items():
        for address in guarded.addresses(name):
            assert _passes(guarded.places["c1"], guarded.places[name], address, expected=expected) == expected, (name, address)
    assert _passes(guarded.places["c1"], guarded.outside, OUTSIDE[0])
    assert _passes(guarded.outside, guarded.places["c1"], guarded.addresses("c1")[0])
    for name, bridge in (("c1", "cnit0"), ("c2", "cnit0"), ("c3", "cnit1")):
        guarded.call("DEL", guarded.config(name, bridge, ingressPolicy=policy), name)
    assert filters() == ""


@backends
def test_the_isolation_ends_with_the_last_pod(guarded: Guarded) -> None:
    """Of the bridge."""
    for name, bridge in (("c1", "cnit0"), ("c2", "cnit0"), ("c3", "cnit1")):
        guarded.pod(name, bridge, ingressPolicy="same-bridge")
    address = guarded.addresses("c3")[0]
    guarded.call("DEL", guarded.config("c1"), "c1")
    assert not _passes(guarded.places["c2"], guarded.places["c3"], address, expected=False)
    guarded.call("DEL", guarded.config("c2"), "c2")
    assert _passes(guarded.places["c2"], guarded.places["c3"], address)


@backends
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"prevResult": None},
        {"backend": None},
        {"backend": "bogus"},
        {"name": "renamed"},
        {"ingressPolicy": "x", "firewalldZone": 5},
    ],
)
def test_del_whatever_has_become_of_the_configuration(guarded: Guarded, change: dict[str, Any]) -> None:
    """Nothing is left; twice."""
    config = {**guarded.pod("c1", ingressPolicy="isolated"), **change}
    for _time in range(2):
        guarded.call("DEL", {key: value for key, value in config.items() if value is not None}, "c1")
        assert filters() == ""


@pytest.mark.parametrize(
    ("backend", "break_"),
    [
        ("nftables", ["nft", "flush", "ruleset"]),
        ("nftables", ["nft", "flush", "set", "ip", "trivet_admission", "admit-pods"]),
        ("nftables", ["nft", "flush", "chain", "ip6", "trivet_admission", "admit-forward"]),
        ("nftables", ["nft", "flush", "chain", "ip", "trivet_admission", "isolation-forward"]),
        ("nftables", ["nft", "flush", "set", "ip", "trivet_admission", "isolation-bridges"]),
        ("iptables", ["iptables", "-F"]),
        ("iptables", ["iptables", "-F", "FORWARD"]),
        ("iptables", ["ip6tables", "-F", "TRIVET-FORWARD"]),
        ("iptables", ["iptables", "-F", "TRIVET-ISOLATION"]),
        ("iptables", ["iptables", "-D", "TRIVET-FORWARD", "3"]),
    ],
)
def test_check_sees_what_is_broken(guarded: Guarded, break_: list[str]) -> None:
    """ADD mends it; and DEL takes down what is left of it."""
    config = guarded.pod("c1", ingressPolicy="same-bridge")
    guarded.call("CHECK", config, "c1")
    run(*break_)
    with pytest.raises(FailedPrecondition, match="of the admission is gone"):
        guarded.call("CHECK", config, "c1")
    guarded.call("ADD", config, "c1")
    guarded.call("CHECK", config, "c1")
    run(*break_)
    guarded.call("DEL", config, "c1")
    assert filters() == "" or "-F" in break_


@pytest.mark.parametrize(
    ("backend", "break_"),
    [
        ("nftables", ["nft", "flush", "set", "ip", "trivet_admission", "admit-pods"]),
        ("nftables", ["nft", "flush", "set", "ip", "trivet_admission", "isolation-bridges"]),
        ("nftables", ["nft", "flush", "chain", "ip", "trivet_admission", "isolation-forward"]),
        ("iptables", ["iptables", "-F", "FORWARD"]),
        ("iptables", ["iptables", "-F", "TRIVET-ISOLATION"]),
    ],
)
def test_gc_mends(guarded: Guarded, break_: list[str]) -> None:
    """What is left tells what there was."""
    config = guarded.pod("c1", ingressPolicy="isolated")
    run(*break_)
    with pytest.raises(FailedPrecondition):
        guarded.call("CHECK", config, "c1")
    guarded.call("GC", {**config, "cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]}, "")
    guarded.call("CHECK", config, "c1")
    guarded.call("DEL", config, "c1")
    assert filters() == ""


@backends
def test_gc_keeps_the_named(guarded: Guarded) -> None:
    """Of its own network; without the list, everybody."""
    configs = {name: guarded.pod(name, bridge) for name, bridge in (("c1", "cnit0"), ("stale", "cnit0"), ("theirs", "cnit1"))}
    before = filters()
    guarded.call("GC", guarded.config(""), "")
    assert filters() == before
    guarded.call("GC", guarded.config("", **{"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]}), "")
    guarded.call("CHECK", configs["c1"], "c1")
    guarded.call("CHECK", configs["theirs"], "theirs")
    with pytest.raises(FailedPrecondition):
        guarded.call("CHECK", configs["stale"], "stale")


@pytest.mark.parametrize("backend", ["nftables"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backend": "bogus"}, "backend: 'bogus' is not one of"),
        ({"backend": 5}, "backend: 5 is not a str"),
        ({"ingressPolicy": "closed"}, "ingressPolicy: 'closed' is not one of open, same-bridge, isolated"),
        ({"iptablesAdminChainName": "X"}, "iptablesAdminChainName: backend nftables has no chains of iptables"),
        ({"iptablesAdminChainName": "A B", "backend": None}, "iptablesAdminChainName: 'A B' is not the name of a chain"),
        ({"firewalldZone": "-x"}, "firewalldZone: '-x' is not the name of a zone"),
        ({"prevResult": None}, "prevResult is missing"),
        (
            {"ingressPolicy": "isolated", "prevResult": {"cniVersion": "1.1.0", "ips": [{"address": "10.0.0.2/24"}]}},
            "ingressPolicy: isolated is for networks of plugin bridge",
        ),
    ],
)
def test_a_wrong_field_is_named(guarded: Guarded, change: dict[str, Any], message: str) -> None:
    """With code 7, and nothing is made."""
    config = {**guarded.pod("c1"), **change}
    guarded.call("DEL", guarded.config("c1"), "c1")
    with pytest.raises(InvalidArgument) as error:
        guarded.call("ADD", {key: value for key, value in config.items() if value is not None}, "c1")
    assert message in str(error.value)
    assert filters() == ""


def needs_bridge_netfilter() -> None:
    """Without it no packet filter of IP sees what goes from one port of a bridge to another."""
    if not Path("/proc/sys/net/bridge/bridge-nf-call-iptables").exists():
        pytest.skip("this kernel has no br_netfilter (CONFIG_BRIDGE_NETFILTER)")
    for name in ("iptables", "ip6tables"):
        Path(f"/proc/sys/net/bridge/bridge-nf-call-{name}").write_text("1")


def _passes(source: Path, place: Path, address: str, *, expected: bool = True) -> bool:
    """Datagrams from `source` do. The node's own, which nothing keeps out, come after them: three of those, and none of the
    others, tell that they do not. Where they should, more are sent, for a young IPv6 link loses some."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with on(place):
        listening = socket.socket(family, socket.SOCK_DGRAM)
        listening.bind((address, 0))
    with on(source):
        asking = socket.socket(family, socket.SOCK_DGRAM)
    with listening, asking, socket.socket(family, socket.SOCK_DGRAM) as control:
        listening.settimeout(1)
        controls = 0
        while controls < (20 if expected else 3):
            for sender, text in ((asking, b"asks"), (control, b"control")):
                sender.sendto(text, listening.getsockname()[:2])
            try:
                if listening.recv(16) == b"asks":
                    return True
                controls += 1
            except TimeoutError:
                continue
    return False


def _unreachable(program: str) -> str:
    return "icmp6-port-unreachable" if program == "ip6tables" else "icmp-port-unreachable"
