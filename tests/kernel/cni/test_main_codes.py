"""The codes of the specification that callers of the interface-making plugins see."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cni_plugins import skel
from runtime_core.registry import installed
from tests.kernel.cni import main_node
from tests.kernel.cni.main_node import Node, add_pair

_KINDS = ("bridge", "ptp", "macvlan", "ipvlan", "vlan", "tap", "dummy", "host-device")
_CONFIGS: dict[str, dict[str, Any]] = {
    "macvlan": {"master": "up0"}, "ipvlan": {"master": "up0"}, "vlan": {"master": "up0"}, "host-device": {"device": "up0"},
}  # fmt: skip


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with main_node.made(tmp_path) as node:
        yield node


def _answer(monkeypatch: pytest.MonkeyPatch, verb: str, config: dict[str, Any], netns: str = "", name: str = "eth0") -> Any:
    """What an executable prints."""
    variables = {"COMMAND": verb, "CONTAINERID": "c1", "NETNS": netns, "IFNAME": name, "ARGS": "", "PATH": "/nowhere"}
    for key, value in variables.items():
        monkeypatch.setenv(f"CNI_{key}", value)
    modules = {driver.name: driver.entry for driver in installed("cni")}
    status, output = skel.serve_call(config["type"], modules, "", json.dumps(config).encode(), [])
    assert (status == 0) == (b'"code"' not in output)
    return json.loads(output or b"{}")


@pytest.mark.parametrize("kind", ["macvlan", "ipvlan", "vlan", "host-device"])
def test_status_without_the_link_that_it_needs(node: Node, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """50: the plugin cannot serve ADD; with the link it can."""
    config = node.config(kind, **_CONFIGS[kind])
    answer = _answer(monkeypatch, "STATUS", config)
    assert (answer["code"], "up0" in answer["msg"]) == (50, True)
    add_pair("up0", "up1")
    assert _answer(monkeypatch, "STATUS", config) == {}


@pytest.mark.parametrize("kind", _KINDS)
def test_status_without_the_ipam_plugin(node: Node, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """50, and its name."""
    add_pair("up0", "up1")
    answer = _answer(monkeypatch, "STATUS", node.config(kind, **_CONFIGS.get(kind, {}), ipam={"type": "absent"}))
    assert (answer["code"], "'absent'" in answer["msg"]) == (50, True)


@pytest.mark.parametrize("kind", sorted(driver.name for driver in installed("cni")))
@pytest.mark.parametrize(("verb", "last_without"), [("CHECK", "0.3.1"), ("GC", "1.0.0"), ("STATUS", "1.0.0")])
def test_a_verb_that_the_version_has_not(monkeypatch: pytest.MonkeyPatch, kind: str, verb: str, last_without: str) -> None:
    """1, as the reference set says: the specification has CHECK since 0.4.0, GC and STATUS since 1.1.0."""
    answer = _answer(monkeypatch, verb, {"cniVersion": last_without, "name": "net", "type": kind}, "/nowhere")
    assert (answer["code"], verb in answer["msg"], answer["cniVersion"]) == (1, True, last_without)


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize(
    ("netns", "name", "code", "field"),
    [
        ("{pod}", "sixteen-bytes-xx", 4, "CNI_IFNAME"),
        ("{pod}", "a/b", 4, "CNI_IFNAME"),
        ("/proc/thread-self/ns/net", "eth0", 4, "CNI_NETNS"),
        ("/nowhere", "eth0", 3, "CNI_NETNS"),
        ("/etc/hostname", "eth0", 3, "CNI_NETNS"),
    ],
)
def test_parameters_that_are_wrong(
    node: Node, monkeypatch: pytest.MonkeyPatch, kind: str, netns: str, name: str, code: int, field: str
) -> None:
    """The variable is named; DEL with the same says nothing."""
    add_pair("up0", "up1")
    config = node.config(kind, **_CONFIGS.get(kind, {}))
    netns = netns.format(pod=node.pod())
    answer = _answer(monkeypatch, "ADD", config, netns, name)
    assert (answer["code"], field in answer["msg"]) == (code, True)
    assert _answer(monkeypatch, "DEL", config, netns, name) == {}
