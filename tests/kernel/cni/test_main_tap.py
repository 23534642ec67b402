"""The plugin tap: frames that a program writes arrive, and each option."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cni_plugins.links import labelled_tap
from e2e.wait import wait_for
from runtime_core.errors import FailedPrecondition, InvalidArgument, NotFound
from runtime_core.network.carrier import has_carrier
from runtime_core.network.links import Link
from tests.kernel.cni import main_node
from tests.kernel.cni.main_node import Node, names, on, run, sysctl

_TUNSETIFF, _TAP, _MULTI_QUEUE, _NO_PI = 0x400454CA, 0x2, 0x100, 0x1000
_OWNER, _GROUP, _MULTI = 1, 2, 7  # IFLA_TUN_OWNER, IFLA_TUN_GROUP, IFLA_TUN_MULTI_QUEUE


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with main_node.made(tmp_path) as node:
        yield node


def _link(pod: Path, name: str = "eth0") -> Link:
    with on(pod) as links:
        found = links.find(name)
    assert found is not None
    return found


def _open(pod: Path, flags: int = _TAP | _NO_PI) -> int:
    """The other end, as a virtual machine has it."""
    with on(pod):
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", b"eth0", flags))
        except OSError:
            os.close(descriptor)
            raise
        has_carrier("eth0")  # a bridge forwards for the device from now on
    return descriptor


def _frames(descriptor: int) -> list[bytes]:
    """Those that wait."""
    found = []
    try:
        while True:
            found.append(os.read(descriptor, 2000))
    except BlockingIOError:
        return found


def _datagram(mac: str, payload: bytes) -> bytes:
    """Ethernet, IPv4 and UDP to 10.77.0.2:7777, without a UDP checksum."""
    udp = struct.pack("!HHHH", 9, 7777, 8 + len(payload), 0) + payload
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, bytes([10, 77, 0, 9]), bytes([10, 77, 0, 2]))
    total = sum(struct.unpack("!10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    header = header[:10] + struct.pack("!H", ~total & 0xFFFF) + header[12:]
    return bytes.fromhex(mac.replace(":", "")) + bytes.fromhex("020000000099") + b"\x08\x00" + header + udp


def test_what_a_program_writes_arrives(node: Node) -> None:
    """At an address that IPAM gave; the device stays when nobody has it open."""
    result, config = node.attach(node.config("tap"), pod := node.pod())
    node.call("CHECK", config, pod)
    with on(pod):
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("10.77.0.2", 7777))
    with server:
        server.settimeout(5)
        descriptor = _open(pod)
        os.write(descriptor, _datagram(result["interfaces"][0]["mac"], b"ping"))
        assert server.recv(16) == b"ping"
        os.close(descriptor)
    assert _link(pod).kind == "tun"
    node.call("DEL", config, pod)
    assert (names(pod), node.reserved()) == (set(), [])


def test_owner_and_group(node: Node) -> None:
    """As numbers, also 0; without them the device has none."""
    node.call("ADD", node.config("tap", owner=0, group=4000), pod := node.pod())
    data = _link(pod).data
    assert struct.unpack("=II", data[_OWNER] + data[_GROUP]) == (0, 4000)
    node.call("ADD", node.config("tap"), other := node.pod("other"), container_id="c2")
    assert not {_OWNER, _GROUP} & set(_link(other).data)


@pytest.mark.parametrize("is_asked_for", [True, False])
def test_multi_queue(node: Node, is_asked_for: bool) -> None:
    """Two programs have it open at once, or one alone."""
    node.call("ADD", node.config("tap", multiQueue=is_asked_for), pod := node.pod())
    assert _link(pod).data[_MULTI] == bytes([is_asked_for])
    flags = _TAP | _NO_PI | (_MULTI_QUEUE if is_asked_for else 0)
    first = _open(pod, flags)
    try:
        if is_asked_for:
            os.close(_open(pod, flags))
        else:
            with pytest.raises(OSError, match="busy"):
                _open(pod, flags)
    finally:
        os.close(first)


@pytest.mark.parametrize(
    ("config", "args", "mac"),
    [
        ({"mac": "02:00:00:00:00:01"}, {}, "02:00:00:00:00:01"),
        ({"mac": "02:00:00:00:00:01"}, {"MAC": "02:00:00:00:00:02"}, "02:00:00:00:00:02"),
        ({"runtimeConfig": {"mac": "02:00:00:00:00:03"}}, {"MAC": "02:00:00:00:00:02"}, "02:00:00:00:00:03"),
    ],
)
def test_mtu_and_mac(node: Node, config: dict[str, Any], args: dict[str, str], mac: str) -> None:
    """In the kernel and in the result."""
    result = node.call("ADD", node.config("tap", mtu=1300, **config), pod := node.pod(), args=args)
    link = _link(pod)
    assert (link.mac, link.mtu) == (mac, 1300)
    assert (result["interfaces"][0]["mac"], result["interfaces"][0]["mtu"]) == (mac, 1300)
    assert sysctl(pod, "ipv4/conf/eth0/arp_notify") == "1"


def test_a_bridge_of_the_container(node: Node) -> None:
    """It goes before one of the node with that name; CHECK sees the tap taken off it."""
    pod = node.pod()
    for place in (None, pod):
        with on(place) as links:
            links.add_bridge("br0")
    _result, config = node.attach(node.config("tap", bridge="br0"), pod)
    assert (_link(pod).master, names()) == (_link(pod, "br0").index, {"br0"})
    node.call("CHECK", config, pod)
    run("ip", "link", "set", "eth0", "nomaster", place=pod)
    with pytest.raises(FailedPrecondition, match="bridge: eth0 of the container is no port"):
        node.call("CHECK", config, pod)
    node.call("DEL", config, pod)
    assert names(pod) == {"br0"}


def test_a_bridge_of_the_node(node: Node) -> None:
    """Frames go from the program to the bridge and back, though a device cannot be a port across namespaces."""
    pod = node.pod()
    with on(None) as links:
        links.add_bridge("node0")
    kind, own, other = b"\x88\xb5", bytes.fromhex("020000000042"), bytes.fromhex("020000000043")
    result, config = node.attach(node.config("tap", bridge="node0"), pod)
    node.call("CHECK", config, pod)
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5))
    wire.bind(("node0", 0x88B5))
    machine = _open(pod)
    os.set_blocking(machine, False)
    with wire:
        wire.settimeout(5)
        os.write(machine, b"\xff" * 6 + own + kind + b"ping".ljust(46, b"\0"))
        assert wire.recv(100)[6:18] == own + kind + b"ping"
        wire.send(own + other + kind + b"pong".ljust(46, b"\0"))
        wait_for("the answer", lambda: any(frame[6:18] == other + kind + b"pong" for frame in _frames(machine)), 5)
    os.close(machine)
    with pytest.raises(FailedPrecondition, match="bridge: the container's tap is not connected to node0"):
        run("ip", "link", "set", result["interfaces"][0]["name"], "nomaster")
        node.call("CHECK", config, pod)
    node.call("DEL", config, pod)
    assert (names(), names(pod), node.reserved()) == ({"node0"}, set(), [])


def test_what_leads_to_a_bridge_of_the_node_goes(node: Node) -> None:
    """By DEL without a namespace, by GC, and with an ADD that IPAM refuses."""
    with on(None) as links:
        links.add_bridge("node0")
    config = node.config("tap", bridge="node0")
    node.call("ADD", config, node.pod("one"))
    node.call("DEL", config, "/nowhere")
    assert names() == {"node0"}
    node.call("ADD", config, node.pod("two"))
    node.call("GC", {**config, "cni.dev/valid-attachments": []})
    assert (names(), node.reserved()) == ({"node0"}, [])
    three = node.pod("three")
    with pytest.raises(NotFound):
        node.call("ADD", {**config, "ipam": {"type": "absent"}}, three)
    assert (names(), names(three)) == ({"node0"}, set())


def test_a_bridge_that_is_none(node: Node) -> None:
    """The error names the field and says where it was looked for; nothing is left."""
    pod = node.pod()
    with on(pod) as links:
        links.add_veth("no0", "no1", namespace=-1)
    before = names(pod)
    for name, error, message in (
        ("gone0", NotFound, "bridge: 'gone0' is neither in the container nor on the node"),
        ("no0", FailedPrecondition, "bridge: no0 of the container is a veth, not a bridge"),
        ("a/b", InvalidArgument, "bridge"),
    ):
        with pytest.raises(error, match=message):
            node.call("ADD", node.config("tap", bridge=name), pod)
        assert (names(pod), node.reserved()) == (before, [])


def test_without_ipam(node: Node) -> None:
    """A device that is up and has no address."""
    result, config = node.attach(node.config("tap", ipam=None), pod := node.pod())
    assert "ips" not in result
    assert _link(pod).is_up
    node.call("CHECK", config, pod)


def test_check_sees_another_kind_of_link(node: Node) -> None:
    """Under the same name; DEL leaves it, for it is not ours."""
    _result, config = node.attach(node.config("tap", ipam=None), pod := node.pod())
    run("ip", "link", "del", "eth0", place=pod)
    with on(pod) as links:
        links.add_veth("eth0", "eth1", namespace=-1)
        links.set_up(_link(pod).index)
    with pytest.raises(FailedPrecondition, match="eth0 of the container is a veth, not a tun"):
        node.call("CHECK", config, pod)
    node.call("DEL", config, pod)
    assert names(pod) == {"eth0", "eth1"}


class TestSelinux:
    """selinuxContext; this kernel need not have SELinux."""

    def test_a_node_without_it(self, node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """STATUS and ADD say so, by the field; nothing is left."""
        monkeypatch.setattr(labelled_tap, "_ENFORCE", str(tmp_path / "absent"))
        pod = node.pod()
        for verb in ("STATUS", "ADD"):
            with pytest.raises(FailedPrecondition, match="selinuxContext: SELinux is not enabled"):
                node.call(verb, node.config("tap", selinuxContext="system_u:system_r:container_t:s0"), pod)
        assert names(pod) == set()

    def test_the_program_that_makes_the_device_has_the_label(
        self, node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """It is written for the next program alone, and the other options hold."""
        (tmp_path / "enforce").touch()
        written: list[bytes] = []
        monkeypatch.setattr(labelled_tap, "_ENFORCE", str(tmp_path / "enforce"))
        monkeypatch.setattr(labelled_tap, "_set_next_label", lambda value, _label: written.append(value))
        config = node.config("tap", selinuxContext="system_u:system_r:x_t:s0", multiQueue=True, owner=5, group=6, mtu=1400)
        node.call("ADD", config, pod := node.pod())
        assert written == [b"system_u:system_r:x_t:s0", b"\n"]
        link = _link(pod)
        assert (link.mtu, link.data[_MULTI]) == (1400, b"\1")
        assert struct.unpack("=II", link.data[_OWNER] + link.data[_GROUP]) == (5, 6)

    def test_a_label_that_the_kernel_refuses(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """The error has it."""
        monkeypatch.setattr(labelled_tap, "_NEXT_LABEL", str(tmp_path))  # a directory: writing it fails
        with pytest.raises(InvalidArgument, match="selinuxContext: 'bogus' is refused"):
            labelled_tap._set_next_label(b"bogus", "bogus")


@pytest.mark.parametrize(
    "change",
    [{"owner": -1}, {"owner": "root"}, {"group": 1 << 32}, {"multiQueue": 1}, {"mtu": "x"}, {"mac": "x"}, {"selinuxContext": 5}],
)
@pytest.mark.parametrize("verb", ["STATUS", "ADD"])
def test_what_is_wrong_is_named(node: Node, verb: str, change: dict[str, Any]) -> None:
    """Before anything is made."""
    with pytest.raises(InvalidArgument, match=next(iter(change))):
        node.call(verb, node.config("tap", **change), pod := node.pod())
    assert names(pod) == set()
