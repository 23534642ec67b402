"""conditionsV4 and conditionsV6 of portmap by nftables: whatever nft takes for a condition, and nothing that leaves the rule."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from plugins.packet_filters import nft_conditions
from runtime_core.errors import InvalidArgument, NotFound, TrivetError
from runtime_core.testing import namespaces
from runtime_core.testing.tools import require_program
from tests.kernel.cni import mapped_ports
from tests.kernel.cni.main_node import names, run
from tests.kernel.cni.mapped_ports import NODE, OUTSIDE, WEB, Mapped
from tests.kernel.cni.port_traffic import filters, rules

_OTHERS = "{ 127.0.0.0/8, 198.19.254.254 }"


@pytest.fixture
def mapped(tmp_path: Path) -> Iterator[Mapped]:
    require_program("nft", "nftables")
    with mapped_ports.made(tmp_path, "nftables") as made:
        yield made


@pytest.mark.parametrize(
    ("words", "is_met"),
    [
        (["ip", "daddr", "!=", _OTHERS], True),
        (["ip", "daddr", "!=", "{ 127.0.0.0/8, 198.51.100.1 }"], False),
        (["ip saddr { 198.51.100.0/30, 192.0.2.7 }"], True),
        (["ip saddr 198.51.100.1-198.51.100.9"], True),
        (["ip saddr 198.51.100.3-198.51.100.9"], False),
        (["tcp dport 8000-9000"], True),
        (["tcp dport { 80, 8000-8079 }"], False),
        (["ct", "state", "new"], True),
        (["ct state { new, untracked }"], True),
        (["ct state established"], False),
        (["iif", "up0"], True),
        (["iif", "!=", "up0"], False),
        (["iif { up0, cnit0 } meta l4proto { tcp, udp }"], True),
        (["iifname", '"up0"'], True),
        (['iifname "up*"'], True),
        (['iifname { "up0", "lo" }'], True),
        (["oif", "up0"], False),
        (["ip", "saddr", "&", "255.255.255.0", "==", "198.51.100.0"], True),
        (["meta mark & 0xff == 0x1"], False),
        (["ip saddr . tcp dport { 198.51.100.2 . 8080 }"], True),
        (["ip saddr . tcp dport { 198.51.100.0/24 . 8000-8080, 192.0.2.0/24 . 1-9 }"], True),
        (["fib", "saddr", "type", "!=", "local"], True),
        (["ip dscp != 7 ip ttl > 1 tcp flags syn"], True),
        (["meta", "skuid", "0"], False),
    ],
)
def test_what_nft_takes(mapped: Mapped, words: list[str], is_met: bool) -> None:
    """As the rule of it would be; CHECK knows it, GC leaves it alone, and DEL leaves nothing."""
    before = rules()
    config = mapped.add(WEB, conditionsV4=words)
    assert (mapped.seen(mapped.outside, NODE[4]) == OUTSIDE[4]) == is_met
    assert mapped.seen(mapped.outside, NODE[6]) == OUTSIDE[6]
    mapped.node.call("CHECK", config, mapped.pod)
    mapped.node.call("GC", {**config, "cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]})
    mapped.node.call("ADD", config, mapped.pod)
    mapped.node.call("CHECK", config, mapped.pod)
    mapped.node.call("DEL", {**config, "conditionsV4": None}, mapped.pod)
    assert (filters(), rules()) == ("", before)


def test_two_containers_with_the_same(mapped: Mapped) -> None:
    """The rule and its sets go with the later one."""
    first = mapped.add(WEB, conditionsV4=["ip", "daddr", "!=", _OTHERS], conditionsV6=["ip6 saddr { 2001:db8::/64, ::1 }"])
    second = {**first, "runtimeConfig": {"portMappings": [{**WEB, "hostPort": 8081}]}}
    mapped.node.call("ADD", second, mapped.pod, container_id="c2")
    mapped.node.call("DEL", first, mapped.pod)
    for version in (4, 6):
        assert mapped.seen(mapped.outside, NODE[version], {**WEB, "hostPort": 8081}) == OUTSIDE[version]
    mapped.node.call("DEL", second, mapped.pod, container_id="c2")
    assert filters() == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ip saddr 10.0.0.1; flush ruleset"], "does not stay within one rule: ';'"),
        (["ip saddr 10.0.0.1 }", "add table ip evil {"], "does not stay within one rule: '}'"),
        (["} } table ip evil { chain c {"], "does not stay within one rule: '}'"),
        (["ip saddr { 10.0.0.1"], "lacks a closing brace"),
        (['iifname "a" # "'], "does not stay within one rule: '#'"),
        (['iifname "a'], "does not stay within one rule"),
        (["ip saddr $evil"], "does not stay within one rule: '$'"),
        (["ip saddr 10.0.0.1\nadd table ip evil"], "a character that no condition needs"),
        (["ip saddr 10.0.0.1 \\"], "a character that no condition needs"),
        (["ip saddr 10.0.0.1 accept"], "does more than ask for a condition: immediate"),
        (["drop"], "does more than ask for a condition"),
        (["masquerade"], "does more than ask for a condition: masq"),
        (["ip saddr 10.0.0.1 dnat to 10.0.0.2"], "does more than ask for a condition: nat"),
        (["meta mark set 1"], "does more than ask for a condition: meta"),
        (["ct mark set 1"], "does more than ask for a condition: ct"),
        (["ip ttl set 1"], "does more than ask for a condition: payload"),
        (["ip saddr vmap { 10.0.0.1 : drop }"], "does more than ask for a condition: lookup"),
        (["log"], "does more than ask for a condition: log"),
        (["jump evil"], "nft says"),
        (["ip saddr @evil"], "nft says"),
        (["ip saddr fd00::1"], "nft says"),
        (["ip6 saddr fd00::1"], "nft says"),
        (["iif gone0"], "nft says"),
        (["tcp dport 65536"], "nft says"),
        (["ip saddr"], "nft says"),
        (["-s 10.0.0.0/8"], "nft says"),
        (["bogus"], "nft says"),
        (["counter name evil"], "nft says"),
    ],
)
def test_what_is_no_condition(mapped: Mapped, words: list[str], message: str) -> None:
    """It is refused by the field, with nothing made, here or anywhere."""
    before, links = rules(), names()
    with pytest.raises(InvalidArgument) as error:
        mapped.add(WEB, conditionsV4=words)
    assert str(error.value).startswith("conditionsV4: ")
    assert message in str(error.value)
    assert (rules(), names()) == (before, links)


def test_plain_ones_need_no_nft(mapped: Mapped, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others say what is missing, with code 50; DEL needs none in any case."""
    config = mapped.add(WEB, conditionsV4=["ip", "daddr", "!=", _OTHERS])
    with monkeypatch.context() as patch:
        patch.setattr("plugins.packet_filters.ipt_command._MORE_PATH", "/nowhere")
        patch.setenv("PATH", "/nowhere")
        mapped.node.call("DEL", config, mapped.pod)
        mapped.add(WEB, conditionsV4=["ip", "saddr", "198.51.100.2"])
        with pytest.raises(NotFound, match="nft is not installed") as error:
            mapped.add(WEB, conditionsV4=["ip", "daddr", "!=", _OTHERS])
        assert getattr(error.value, "code", 0) == 50
        mapped.node.call("DEL", config, mapped.pod)
    assert filters() == ""


def test_both_translations_say_the_same() -> None:
    """Of a plain condition."""
    from plugins.packet_filters import nft_translation

    require_program("nft", "nftables")
    with namespaces.node_namespace():
        for text in ("ip saddr 10.0.0.1", "meta mark 16", "th dport != 80"):
            plain = nft_conditions.expressions(text, 4, "conditionsV4")
            assert [one[0] for one in nft_translation.expressions(text, 4, "conditionsV4")][-1] == plain[-1][0]
        with pytest.raises(TrivetError):
            nft_translation.expressions("oops", 4, "conditionsV4")
        assert run("nft", "list", "ruleset") == ""
