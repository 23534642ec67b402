"""The plugin loopback: lo is up, and the result says what it has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime_core.errors import FailedPrecondition, NotFound
from tests.kernel.cni import main_node
from tests.kernel.cni.main_node import Node, on, reaches, run

_CONFIG = {"cniVersion": "1.1.0", "name": "lo", "type": "loopback"}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with main_node.made(tmp_path) as node:
        yield node


def test_lo_is_up_whatever_the_interface_is_called(node: Node) -> None:
    """With traffic over it; CHECK sees it down, and DEL leaves it to whoever else is in the namespace."""
    pod = node.pod()
    run("ip", "link", "set", "lo", "down", place=pod)
    with pytest.raises(FailedPrecondition, match="lo of the container is down"):
        node.call("CHECK", _CONFIG, pod)
    result = node.call("ADD", _CONFIG, pod)
    assert result["interfaces"] == [{"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": str(pod)}]
    assert [(ip["interface"], ip["address"]) for ip in result["ips"]] == [(0, "127.0.0.1/8"), (0, "::1/128")]
    reaches(pod, pod, ["127.0.0.1", "::1"])
    node.call("CHECK", {**_CONFIG, "prevResult": result}, pod)
    for netns in (pod, "", "/nowhere"):
        node.call("DEL", {**_CONFIG, "prevResult": result}, netns)
    node.call("CHECK", _CONFIG, pod)


def test_without_ipv6(node: Node) -> None:
    """The result does not promise ::1."""
    pod = node.pod()
    with on(pod):
        Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")
    assert [ip["address"] for ip in node.call("ADD", _CONFIG, pod)["ips"]] == ["127.0.0.1/8"]


def test_addresses_that_are_not_loopbacks_are_not_listed(node: Node) -> None:
    """A service's address on lo is none of the loopback's."""
    pod = node.pod()
    run("ip", "address", "add", "192.0.2.1/32", "dev", "lo", place=pod)
    assert [ip["address"] for ip in node.call("ADD", _CONFIG, pod)["ips"]] == ["127.0.0.1/8", "::1/128"]


def test_in_a_chain_the_result_is_that_of_the_plugin_before(node: Node) -> None:
    """Unchanged."""
    previous = {
        "cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "sandbox": "/x"}],
        "ips": [{"address": "10.0.0.2/24", "interface": 0}], "dns": {"nameservers": ["10.0.0.10"]},
    }  # fmt: skip
    assert node.call("ADD", {**_CONFIG, "prevResult": previous}, node.pod()) == previous


def test_a_namespace_that_is_none(node: Node) -> None:
    """ADD and CHECK name the field; STATUS and GC need none."""
    for verb in ("ADD", "CHECK"):
        with pytest.raises(NotFound, match="CNI_NETNS"):
            node.call(verb, _CONFIG, "/nowhere")
    node.call("STATUS", _CONFIG)
    node.call("GC", {**_CONFIG, "cni.dev/valid-attachments": []})
