"""dhcp where something is wrong: servers that are silent, refuse or lie, and callers that err or vanish."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cni_plugins import skel
from cni_plugins.ipam.dhcp import plugin
from runtime_core.errors import Aborted, DeadlineExceeded, FailedPrecondition, InvalidArgument, NotFound, TrivetError, Unavailable
from runtime_core.testing import namespaces
from tests.kernel.cni.ipam_dhcp_node import Node
from tests.support.dhcp_server import ACK, DISCOVER, NAK, OFFER, RELEASE, REQUEST, Asked


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with namespaces.node_namespace():
        node = Node(tmp_path)
        yield node
        node.close()


def test_nobody_answers(node: Node) -> None:
    """It is asked several times, later and later, then the plugin is told; nothing is left."""
    node.server.answers = lambda asked: []
    with pytest.raises(DeadlineExceeded, match="no DHCP server answered on eth0 within 4 s"):
        plugin.add(node.request())
    transactions = [node.server.next(DISCOVER).transaction for _time in range(4)]
    assert len(set(transactions)) == 1
    assert node.records() == []
    node.server.answers = node.server.usual
    assert plugin.add(node.request())["ips"][0]["address"] == "10.9.0.10/24"


def test_a_refused_request_begins_anew(node: Node) -> None:
    """As when the server had given the address to another in between."""
    refused: list[Asked] = []

    def once(asked: Asked) -> list[bytes]:
        if asked.kind == REQUEST and not refused:
            refused.append(asked)
            return [node.server.reply(asked, NAK)]
        return node.server.usual(asked)

    node.server.answers = once
    assert plugin.add(node.request())["ips"][0]["address"] == "10.9.0.10/24"
    first, second = node.server.next(DISCOVER), node.server.next(DISCOVER)
    assert first.transaction != second.transaction


_OTHER = b"\x0a\x09\x00\x63"
_HOSTILE: dict[str, dict[str, Any]] = {
    "another transaction": {"transaction": 1},
    "another client": {"mac": b"\x02\0\0\0\0\x01"},
    "a request": {"op": 1},
    "no cookie": {"cookie": b"abcd"},
    "no server": {"options": {54: None}},
    "half a server": {"options": {54: b"\x0a"}},
    "no type": {"options": {53: None}},
    "an option cut off": {"end": b"\x0c\xff\x00"},
    "overload of nonsense": {"options": {52: b"\x09"}},
}


@pytest.mark.parametrize("change", _HOSTILE.values(), ids=_HOSTILE)
def test_hostile_answers_are_ignored(node: Node, change: dict[str, Any]) -> None:
    """One comes before each right answer, with an address that must not be taken."""
    node.server.answers = lambda asked: [
        node.server.reply(asked, OFFER if asked.kind == DISCOVER else ACK, _OTHER, **change),
        node.server.reply(asked, NAK, **change), b"", b"\xff" * 10, *node.server.usual(asked),
    ]  # fmt: skip
    assert plugin.add(node.request())["ips"][0]["address"] == "10.9.0.10/24"


@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"])
def test_offers_of_what_is_no_hosts_address_are_ignored(node: Node, address: str) -> None:
    """The right one, which comes later, is taken."""
    node.server.answers = lambda asked: [
        *([node.server.reply(asked, OFFER, socket.inet_aton(address))] if asked.kind == DISCOVER else []), *node.server.usual(asked),
    ]  # fmt: skip
    assert plugin.add(node.request())["ips"][0]["address"] == "10.9.0.10/24"


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({1: None}, "no subnet mask"),
        ({1: b"\xff\x00\xff\x00"}, "has holes"),
        ({121: b"\x21\x0a\x00\x00\x00\x00\x0a\x09\x00\x01"}, "classless routes"),
        ({121: b"\x18\x0a"}, "classless routes"),
    ],
)
def test_an_answer_of_no_use_is_given_back(node: Node, extra: dict[int, Any], message: str) -> None:
    """The plugin is told why, and the server has its address again."""
    node.server.extra |= extra
    with pytest.raises(FailedPrecondition, match=message):
        plugin.add(node.request())
    assert node.server.next(RELEASE).client_address == socket.inet_aton("10.9.0.10")
    assert node.records() == []


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"interface": "eth7"}, NotFound, "the container has no interface eth7"),
        ({"netns": "/nowhere"}, NotFound, "CNI_NETNS: '/nowhere'"),
        ({"ipam": {"provide": [{"option": "300", "value": "x"}]}}, InvalidArgument, r"ipam.provide\[0\].option"),
        ({"ipam": {"request": {}}}, InvalidArgument, "ipam.request"),
        ({"ipam": {"priority": -1}}, InvalidArgument, "ipam.priority"),
        ({"ipam": {"daemonSocketPath": 5}}, InvalidArgument, "ipam.daemonSocketPath"),
        ({"ipam": {"daemonSocketPath": "/nowhere"}}, Unavailable, "no DHCP daemon listens on /nowhere"),
    ],
)
def test_refusals(node: Node, change: dict[str, Any], error: type[TrivetError], message: str) -> None:
    """By the field, and nothing is asked of a server."""
    with pytest.raises(error, match=message):
        plugin.add(node.request(**change))
    assert node.server.asked.empty()


def test_a_killed_plugin_leaves_no_lease(node: Node) -> None:
    """Its connection ends, and so does the daemon's asking; a second ADD meanwhile is told to come later."""
    node.server.answers = lambda asked: []
    with socket.socket(socket.AF_UNIX) as killed:
        killed.connect(str(node.socket))
        request = {
            "verb": "ADD", "network": "net", "container_id": "c1", "interface": "eth0", "netns": str(node.pod), "ipam": {}, "args": {},
        }  # fmt: skip
        killed.sendall(json.dumps(request).encode() + b"\n")
        node.server.next(DISCOVER)
        with pytest.raises(Aborted, match="is being asked for already"):
            plugin.add(node.request())
    node.server.answers = node.server.usual
    assert plugin.add(node.request())["ips"][0]["address"] == "10.9.0.10/24"


@pytest.mark.parametrize("line", [b"x\n", b"[]\n", b"{}\n", b'{"verb": 5}\n', b"[" * 100000 + b"\n", b"\xff\n"])
def test_nonsense_on_the_socket(node: Node, line: bytes) -> None:
    """It is answered, and the daemon goes on."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(node.socket))
        sock.sendall(line)
        with sock.makefile() as file:
            assert json.loads(file.readline())["error"] == "InvalidArgument"
    plugin.status(node.request())
    assert oct(node.socket.stat().st_mode & 0o777) == "0o600"


def test_a_configuration_without_a_version(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the oldest there is: the answer has that shape."""
    for key, value in {
        "COMMAND": "ADD",
        "CONTAINERID": "c1",
        "IFNAME": "eth0",
        "NETNS": str(node.pod),
        "PATH": "/x",
        "ARGS": "",
    }.items():
        monkeypatch.setenv(f"CNI_{key}", value)
    config = {"name": "net", "ipam": {"type": "dhcp", "daemonSocketPath": str(node.socket)}}
    status, output = skel.serve_call("dhcp", {"dhcp": "cni_plugins.ipam.dhcp.plugin"}, "", json.dumps(config).encode(), [])
    route = {"dst": "0.0.0.0/0", "gw": "10.9.0.1"}
    assert (status, json.loads(output)["ip4"]) == (0, {"ip": "10.9.0.10/24", "gateway": "10.9.0.1", "routes": [route]})
