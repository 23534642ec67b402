"""The packet filter that a node has chosen reaches a plugin, in-process and by executable alike."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from cni_plugins import skel
from cni_plugins.install import find_settings, install
from plugins.packet_filters.nft_conditions import expressions
from runtime_core.cni.invoke import Plugins
from runtime_core.cni.request import Request
from runtime_core.errors import InvalidArgument
from runtime_core.network.packet_filter import BACKENDS, choose_entry_point

_CONFIG = {"cniVersion": "1.1.0", "name": "net", "type": "probe"}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the plugin `probe` is told."""
    seen: list[str] = []
    module = ModuleType("probe_plugin")
    module.status = lambda request: seen.append(request.packet_filter)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "probe_plugin", module)
    return seen


def test_in_process(seen: list[str]) -> None:
    """By the caller's side."""
    Plugins([], {"probe": "probe_plugin"}, packet_filter="mine:Filter").call("probe", "STATUS", Request(config=_CONFIG))
    assert seen == ["mine:Filter"]


def test_as_an_executable(seen: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """By the stub, which hands it to the skeleton."""
    monkeypatch.setenv("CNI_COMMAND", "STATUS")
    assert skel.serve_call("probe", {"probe": "probe_plugin"}, "mine:Filter", json.dumps(_CONFIG).encode(), [])[0] == 0
    assert seen == ["mine:Filter"]


@pytest.mark.parametrize("name", ["nftables", "iptables"])
def test_the_stubs_name_its_entry_point(tmp_path: Path, name: str) -> None:
    """Resolved when they are installed, since nothing is looked up while a kubelet waits."""
    install(tmp_path, overwrite=False, settings=find_settings(name))
    assert BACKENDS[name].encode() in (tmp_path / "bridge").read_bytes()


def test_an_unknown_one_is_refused_before_anything_is_written() -> None:
    """With what there is."""
    with pytest.raises(InvalidArgument, match="'no-such': installed are iptables, nftables"):
        find_settings("no-such")


@pytest.mark.parametrize(
    ("backend", "entry", "expected"),
    [
        ("", "", "plugins.packet_filters.nftables:NftablesFilter"),
        ("", "mine:Filter", "mine:Filter"),
        ("iptables", "mine:Filter", "plugins.packet_filters.iptables:IptablesFilter"),
        ("nftables", "mine:Filter", "plugins.packet_filters.nftables:NftablesFilter"),
    ],
)
def test_a_configuration_may_ask_for_another(backend: str, entry: str, expected: str) -> None:
    """By its name; the node's own is for who asks for none."""
    assert choose_entry_point(backend, "backend", entry) == expected


def test_a_configuration_that_asks_for_what_there_is_not() -> None:
    """It is told by the field."""
    with pytest.raises(InvalidArgument, match="backend: 'bogus' is not one of iptables, nftables"):
        choose_entry_point("bogus", "backend", "mine:Filter")


@pytest.mark.parametrize(
    ("text", "version", "count"),
    [
        ("ip saddr 10.0.0.0/8", 4, 3),
        ("ip saddr != 10.0.0.1 ip daddr == 192.0.2.1", 4, 6),
        ("ip6 saddr fd00::/8", 6, 3),
        ("iifname eth0", 4, 2),
        ('iifname != "eth0"', 4, 2),
        ("meta iifname eth0 meta mark 0x10", 4, 4),
        ("tcp sport 1024", 4, 4),
        ("th dport != 80", 4, 2),
        ("meta l4proto udp", 6, 2),
    ],
)
def test_conditions_of_nftables(text: str, version: int, count: int) -> None:
    """As many expressions of the kernel as they stand for."""
    assert len(expressions(text, version, "conditionsV4")) == count
