"""The plugin firewall on a node whose other rules drop what is forwarded: it goes round them where that can be, and says so
where it cannot."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime_core.errors import FailedPrecondition
from runtime_core.testing.tools import require_program
from tests.kernel.cni import guarded_pods
from tests.kernel.cni.guarded_pods import OUTSIDE, Guarded
from tests.kernel.cni.main_node import run
from tests.kernel.cni.port_traffic import filters, talk

_DOCKER = """
-P FORWARD DROP
-N DOCKER
-N DOCKER-USER
-N ISOLATION-1
-N ISOLATION-2
-A FORWARD -j DOCKER-USER
-A FORWARD -j ISOLATION-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A ISOLATION-1 -i docker0 ! -o docker0 -j ISOLATION-2
-A ISOLATION-2 -o docker0 -j DROP
-A DOCKER-USER -j RETURN
"""
_UFW = """
-P FORWARD DROP
-N before
-N reject
-A FORWARD -j before
-A FORWARD -j reject
-A before -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A before -m conntrack --ctstate INVALID -j DROP
-A reject -m comment --comment "the last -j word" -j REJECT
"""
_HOSTS = {
    "policy": "-P FORWARD DROP",
    "Docker": _DOCKER,
    "ufw": _UFW,
    "a last rule": "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n-A FORWARD -j REJECT",
    "a chain": "-N mine\n-A FORWARD -g mine\n-A mine -j DROP",
    "of the bridge": "-A FORWARD -i cnit0 -j DROP",
}
_FREE = {
    "nothing": "",
    "kube-proxy": "-N KUBE\n-A FORWARD -j KUBE\n-A KUBE -m conntrack --ctstate INVALID -j DROP",
    "of others": "-A FORWARD -i docker0 -o docker0 -j DROP\n-A FORWARD -s 192.0.2.0/24 -o docker0 -j DROP",
}
_STRICT = "add table inet strict; add chain inet strict mine {{ type filter hook forward priority 10; policy {policy}; }}; {rule}"
kinds = pytest.mark.parametrize("kind", ["nft", "legacy"])


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    """The choice is left to the node."""
    with guarded_pods.made(tmp_path, "iptables") as made:
        made.backend = None
        yield made


@kinds
@pytest.mark.parametrize(("host", "policy"), list(zip(_HOSTS, ["open", "same-bridge", "isolated"] * 2, strict=True)))
def test_the_default_gets_through_a_closed_forward(guarded: Guarded, kind: str, policy: str, host: str) -> None:
    """Whichever iptables closes it; CHECK and STATUS are content, and nothing is left."""
    _apply(kind, _HOSTS[host])
    before = _tables()
    config = guarded.pod("c1", ingressPolicy=policy)
    _reaches(guarded)
    guarded.call("CHECK", config, "c1")
    guarded.call("STATUS", guarded.config(""), "")
    valid = {"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]}
    guarded.call("GC", guarded.config("", **valid), "")
    guarded.call("CHECK", config, "c1")
    guarded.call("DEL", config, "c1")
    assert (filters(), _tables()) == ("", before)


@kinds
@pytest.mark.parametrize("host", _FREE)
def test_the_default_stays_where_nothing_is_dropped(guarded: Guarded, kind: str, host: str) -> None:
    """nftables is not left for rules that drop what no pod sends."""
    _apply(kind, _FREE[host])
    config = guarded.pod("c1")
    assert "trivet_admission" in filters()
    assert "TRIVET" not in _tables()
    guarded.call("CHECK", config, "c1")
    guarded.call("STATUS", guarded.config(""), "")
    _reaches(guarded)


def test_stale_admissions_of_the_default(guarded: Guarded) -> None:
    """GC finds them wherever they are."""
    _apply("nft", "-P FORWARD DROP")
    guarded.pod("c1")
    guarded.call("GC", guarded.config("", **{"cni.dev/valid-attachments": []}), "")
    assert filters() == ""


def test_a_host_that_is_closed_afterwards(guarded: Guarded) -> None:
    """CHECK says so of a pod that nftables admits, until it is added anew; and a host that is opened is no fault of a pod's."""
    config = guarded.pod("c1")
    _apply("nft", "-P FORWARD DROP")
    with pytest.raises(FailedPrecondition, match="the admission of 10.77.0.2"):
        guarded.call("CHECK", config, "c1")
    guarded.call("DEL", config, "c1")
    config = guarded.pod("c2")
    guarded.call("CHECK", config, "c2")
    _apply("nft", "-P FORWARD ACCEPT")
    guarded.call("CHECK", config, "c2")


@kinds
def test_a_backend_that_is_named_says_what_drops(guarded: Guarded, kind: str) -> None:
    """nftables admits, and FORWARD of iptables drops: CHECK and STATUS name it; iptables beside it has nothing to say."""
    guarded.backend = "nftables"
    config = guarded.pod("c1")
    guarded.call("CHECK", config, "c1")
    _apply(kind, "-P FORWARD DROP")
    said = {"nft": "dropped by chain FORWARD of table ip filter", "legacy": "dropped by chain FORWARD of iptables-legacy"}[kind]
    for verb, name in (("CHECK", "c1"), ("STATUS", "")):
        with pytest.raises(FailedPrecondition, match=said):
            guarded.call(verb, config, name)
    guarded.call("STATUS", {**config, "backend": "iptables"}, "")


@pytest.mark.parametrize("backend", [None, "nftables", "iptables"])
@pytest.mark.parametrize(
    ("policy", "rule"),
    [
        ("drop", ""),
        ("drop", "add rule inet strict mine ct state established,related accept"),
        ("accept", "add rule inet strict mine counter log reject"),
        ("accept", 'add rule inet strict mine iifname "up0" ct state new drop; add rule inet strict mine ct state new drop'),
        ("accept", "add chain inet strict more; add rule inet strict more drop; add rule inet strict mine jump more"),
        ("drop", "add rule inet strict mine ct state invalid accept"),
    ],
)
def test_another_table_that_nobody_overrules(guarded: Guarded, backend: str | None, policy: str, rule: str) -> None:
    """CHECK and STATUS name it, STATUS by code 51."""
    guarded.backend = backend
    config = guarded.pod("c1")
    run("nft", _STRICT.format(policy=policy, rule=rule))
    for verb, name in (("CHECK", "c1"), ("STATUS", "")):
        with pytest.raises(FailedPrecondition, match="dropped by chain mine of table inet strict") as error:
            guarded.call(verb, config, name)
        assert verb == "CHECK" or getattr(error.value, "code", 0) == 51


@pytest.mark.parametrize(
    "rule",
    [
        'add rule inet strict mine iifname "cnit0" accept; add rule inet strict mine ct state established accept',
        "add rule inet strict mine ip saddr 10.77.0.0/24 accept; add rule inet strict mine ip6 saddr fd77::/64 accept; "
        "add rule inet strict mine ct state established,related accept",
        "add rule inet strict mine meta mark & 1 == 0 accept",
        "add rule inet strict mine ip daddr @listed accept; add rule inet strict mine meta nfproto ipv6 accept",
    ],
)
def test_what_a_closed_table_lets_pass_is_not_complained_of(guarded: Guarded, rule: str) -> None:
    """An administrator's own rules for the pods, and those of which nobody can tell."""
    config = guarded.pod("c1")
    made = _STRICT.format(
        policy="drop", rule="add set inet strict listed { type ipv4_addr; elements = { 198.51.100.2, 10.77.0.2 }; }"
    )
    run("nft", f"{made}; {rule}")
    guarded.call("CHECK", config, "c1")
    guarded.call("STATUS", config, "")


@pytest.mark.parametrize(
    "rule", ['iifname "cnit0" drop', "ip saddr 10.77.0.2 drop", "ip daddr 10.77.0.0/24 drop", 'oifname "cni*" drop']
)
def test_what_drops_this_pod_alone(guarded: Guarded, rule: str) -> None:
    """Its CHECK knows its address and its bridge."""
    config = guarded.pod("c1")
    run("nft", _STRICT.format(policy="accept", rule=f"add rule inet strict mine {rule}"))
    with pytest.raises(FailedPrecondition, match="table inet strict"):
        guarded.call("CHECK", config, "c1")


def test_without_iptables_a_closed_forward_is_told(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its table may be there without its executables."""
    _apply("nft", "-P FORWARD DROP")
    with monkeypatch.context() as patch:
        patch.setattr("plugins.packet_filters.ipt_command._MORE_PATH", "/nowhere")
        patch.setenv("PATH", "/nowhere")
        config = guarded.pod("c1")
        with pytest.raises(FailedPrecondition, match="chain FORWARD of table ip filter"):
            guarded.call("STATUS", config, "")
        guarded.call("GC", {**config, "cni.dev/valid-attachments": []}, "")
    assert filters() == ""


def _apply(kind: str, rules: str) -> None:
    """The same for IPv4 and IPv6, by iptables of this kind."""
    for program in ("iptables", "ip6tables"):
        for line in filter(None, rules.splitlines()):
            words = [word.strip('"') for word in line.replace("the last -j word", "the_last_-j_word").split()]
            if program == "ip6tables" and "-s" in words:
                continue
            run(f"{program}-{kind}", *words)


def _tables() -> str:
    """What both kinds of iptables have, without an empty table of the node's own kind."""
    programs = ("iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save")
    said = [
        subprocess.run([require_program(one, "iptables"), "-t", "filter"], check=True, capture_output=True, text=True).stdout
        for one in programs
    ]
    return "\n".join(line for one in said for line in one.splitlines() if line.startswith("-A"))


def _reaches(guarded: Guarded) -> None:
    """Connections to the outside, by both families; none from there."""
    for address in OUTSIDE:
        assert talk("tcp", guarded.places["c1"], (address, 7777), guarded.outside, (address, 7777)) is not None
