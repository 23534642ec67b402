"""dhcp with its daemon and servers over a veth: leases taken, renewed, lost, given back, and kept over a restart."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cni_plugins.ipam.conf import NotReady
from cni_plugins.ipam.dhcp import plugin
from runtime_core.cni.invoke import Plugins
from runtime_core.cni.request import Request
from runtime_core.errors import Aborted, DeadlineExceeded, FailedPrecondition, InvalidArgument, NotFound, TrivetError, Unavailable
from runtime_core.kernel import netlink
from runtime_core.network.links import Links
from runtime_core.network.namespace import open_namespace
from runtime_core.testing import namespaces
from runtime_core.testing.tools import need
from tests.support.dhcp_server import ACK, DISCOVER, NAK, OFFER, RELEASE, REQUEST, Asked, DhcpServer

_ROOT = Path(__file__).parents[3]
_DAEMON = "import sys; sys.path.insert(0, sys.argv[1]); from cni_plugins.ipam.dhcp.plugin import command_line; sys.exit(command_line(sys.argv[2:]))"


class Node:
    """A node with the server's end of a veth, a pod with the other, and a daemon."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.pod = directory, directory / "pod"
        self.socket = directory / "dhcp.sock"
        namespaces.pin_namespace(self.pod)
        descriptor = open_namespace(str(self.pod))
        with netlink.Socket() as sock:
            links = Links(sock)
            links.add_veth("srv0", "eth0", namespace=descriptor)
            link = links.find("srv0")
            assert link is not None
            links.configure(link.index, ["10.9.0.1/24"], [])
        os.close(descriptor)
        self.server = DhcpServer("srv0")
        self.start()

    def start(self, *flags: str) -> None:
        flags = ("-socketpath", str(self.socket), "-timeout", "300ms", "-resendtimeout=4s", *flags)
        self.daemon = subprocess.Popen(
            [sys.executable, "-IS", "-c", _DAEMON, str(_ROOT), "daemon", *flags], stderr=subprocess.PIPE, text=True
        )
        self.wait_for("listens on")

    def wait_for(self, text: str) -> str:
        """The daemon's next line with this text."""
        assert self.daemon.stderr is not None
        while text not in (line := self.daemon.stderr.readline()):
            assert line, "the daemon has ended"
        return line

    def stop(self, number: int = signal.SIGTERM) -> str:
        """What it said."""
        self.daemon.send_signal(number)
        return self.daemon.communicate(timeout=20)[1]

    def close(self) -> None:
        if self.daemon.returncode is None:
            self.stop()
        self.server.close()
        namespaces.unpin_namespace(self.pod)

    def request(self, ipam: dict[str, Any] | None = None, container: str = "c1", **more: Any) -> Request:
        args, previous = more.pop("env", {}), more.pop("previous", None)
        interface, netns = more.pop("interface", "eth0"), more.pop("netns", str(self.pod))
        config = {
            "cniVersion": "1.1.0", "name": "net", "ipam": {"type": "dhcp", "daemonSocketPath": str(self.socket), **(ipam or {})},
            **more,
        }  # fmt: skip
        return Request(
            config=config, container_id=container, interface=interface, netns=netns, args=args, previous=previous,
        )  # fmt: skip

    def add(self, ipam: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        """ADD, and what the plugin that delegates to us does then."""
        found = plugin.add(self.request(ipam, **more))
        with namespaces.inside(str(self.pod)) as links:
            link = links.find("eth0")
            assert link is not None
            links.configure(link.index, [found["ips"][0]["address"]], [])
        return found

    def is_up(self) -> bool:
        with namespaces.inside(str(self.pod)) as links:
            link = links.find("eth0")
            assert link is not None
            return link.is_up

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in Path(f"{self.socket}.leases").glob("*.json")]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with namespaces.node_namespace():
        node = Node(tmp_path)
        yield node
        node.close()


def test_an_address_is_asked_for_and_given_back(node: Node) -> None:
    """With the identifier and the requested parameters of the reference plugin; DEL may come twice."""
    found = node.add()
    assert found == {
        "ips": [{"address": "10.9.0.10/24", "gateway": "10.9.0.1"}], "routes": [{"dst": "0.0.0.0/0", "gw": "10.9.0.1"}], "dns": {},
    }  # fmt: skip
    discover, request = node.server.next(DISCOVER), node.server.next(REQUEST)
    for asked in (discover, request):
        assert (asked.options[61], asked.options[55], asked.flags) == (b"\0c1/net/eth0", b"\x03\x01", 0)
    assert (request.options[50], request.options[54]) == (socket.inet_aton("10.9.0.10"), node.server.address)
    plugin.check(node.request(previous=found))
    for _time in range(2):
        plugin.delete(node.request())
    released = node.server.next(RELEASE)
    assert (released.client_address, released.options[54]) == (socket.inet_aton("10.9.0.10"), node.server.address)
    assert (released.options[61], node.records()) == (b"\0c1/net/eth0", [])
    with pytest.raises(NotFound, match="no DHCP lease for eth0 of container c1"):
        plugin.check(node.request(previous=found))


def test_options_are_provided_requested_and_read(node: Node) -> None:
    """By name and by number, from the configuration and from CNI_ARGS; routes of RFC 3442 count before all others."""
    node.server.extra |= {
        121: b"\x18\x0a\x05\x00\x0a\x09\x00\x02" + b"\x10\xa9\xfe\x00\x00\x00\x00",
        6: socket.inet_aton("192.0.2.53"), 15: b"d.test",
    }  # fmt: skip
    ipam = {
        "priority": 77,
        "provide": [{"option": "host-name", "fromArg": "POD"}, {"option": "60", "value": "trivet"}],
        "request": [{"skipDefault": True}, {"option": "subnet-mask"}, {"option": "6"}, {"option": "15"}, {"option": "121"}],
    }
    found = node.add(ipam, env={"POD": "web-0"})
    assert found == {
        "ips": [{"address": "10.9.0.10/24", "gateway": "10.9.0.1"}],
        "routes": [
            {"dst": "10.5.0.0/24", "gw": "10.9.0.2", "priority": 77}, {"dst": "169.254.0.0/16", "scope": 253, "priority": 77},
        ],
        "dns": {"nameservers": ["192.0.2.53"], "domain": "d.test"},
    }  # fmt: skip
    asked = node.server.next(DISCOVER)
    assert (asked.options[12], asked.options[60], asked.options[55]) == (b"web-0", b"trivet", b"\x01\x06\x0f\x79")


def test_a_lease_is_renewed_by_its_server_alone(node: Node) -> None:
    """At half of its time, to the server's address and from the container's, again and again."""
    node.server.lease = 2
    node.add()
    node.server.next(REQUEST)
    for _time in range(2):
        renewal = node.server.next(REQUEST)
        assert renewal.client_address == socket.inet_aton("10.9.0.10")
        assert not {50, 54} & set(renewal.options)
    plugin.check(node.request())


def test_without_its_server_any_other_may_renew(node: Node) -> None:
    """At seven eighths the request goes to all."""
    node.server.lease = 4
    usual = node.server.usual
    node.add()
    node.server.answers = lambda asked: []
    assert node.server.next(REQUEST).options[50]
    assert node.server.next(REQUEST).client_address  # to the server
    node.server.answers = lambda asked: [node.server.reply(asked, ACK, asked.client_address, options={54: b"\x0a\x09\x00\x63"})]
    assert node.server.next(REQUEST).client_address  # to all
    node.server.answers = usual
    renewal = node.server.next(REQUEST)  # the next one comes, so that one was taken
    assert renewal.client_address == socket.inet_aton("10.9.0.10")
    plugin.check(node.request())


@pytest.mark.parametrize("end", ["silence", "refusal"])
def test_an_address_that_is_lost_is_used_no_longer(node: Node, end: str) -> None:
    """The link goes down, CHECK says why, DEL succeeds, and ADD asks anew."""
    node.server.lease = 2
    usual = node.server.usual
    node.add()
    refuse = lambda asked: [node.server.reply(asked, NAK)]  # noqa: E731
    node.server.answers = refuse if end == "refusal" else lambda asked: []
    node.wait_for("the link is down")
    assert not node.is_up()
    with pytest.raises(FailedPrecondition, match="has expired"):
        plugin.check(node.request())
    node.server.answers = usual
    node.server.lease = 3600
    plugin.delete(node.request())
    assert node.add()["ips"][0]["address"] == "10.9.0.10/24"
    assert node.is_up()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_leases_outlive_the_daemon(node: Node, number: int) -> None:
    """The next one renews them, knows them at CHECK, and gives them back."""
    node.server.lease = 4
    found = node.add()
    node.stop(number)
    node.start()
    plugin.check(node.request(previous=found))
    assert node.server.next(REQUEST).options[50]
    renewal = node.server.next(REQUEST)
    assert (renewal.client_address, renewal.options[61]) == (socket.inet_aton("10.9.0.10"), b"\0c1/net/eth0")
    plugin.delete(node.request())
    assert node.server.next(RELEASE).client_address == socket.inet_aton("10.9.0.10")
    assert node.records() == []


def test_an_address_whose_time_ran_out_without_a_daemon(node: Node) -> None:
    """The next daemon takes the link down first."""
    node.server.lease = 2
    node.add()
    node.stop()
    (path,) = Path(f"{node.socket}.leases").glob("*.json")
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, **{key: record[key] - 100 for key in ("renewal", "rebinding", "expiry")}}))
    (path.parent / "torn.json").write_text(path.read_text()[:50])
    (path.parent / "old.json").write_text(json.dumps({**record, "boot": "another"}))
    (path.parent / "odd.json").write_text(json.dumps({"boot": record["boot"]}))
    node.start()
    with pytest.raises(FailedPrecondition, match="has expired"):
        plugin.check(node.request())
    assert not node.is_up()


def test_a_namespace_that_is_gone_is_given_up(node: Node) -> None:
    """Without a DEL the record goes at the time of renewal; with one, DEL succeeds."""
    node.server.lease = 2
    node.add()
    namespaces.unpin_namespace(node.pod)
    node.wait_for("given up")
    plugin.delete(node.request())
    assert node.records() == []
    with pytest.raises(NotFound, match="CNI_NETNS"):
        plugin.add(node.request())


def test_the_path_of_another_namespace_is_not_mistaken(node: Node) -> None:
    """What took the path of a namespace later does not get its address renewed."""
    node.server.lease = 2
    node.add()
    namespaces.unpin_namespace(node.pod)
    namespaces.pin_namespace(node.pod)
    assert "another namespace" in node.wait_for("given up")


def test_a_second_add_gives_the_same(node: Node) -> None:
    """Of a lease that holds; nothing is asked of the server."""
    first = node.add()
    node.server.next(REQUEST)
    assert plugin.add(node.request()) == first
    assert plugin.add(node.request({"priority": 9}))["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.9.0.1", "priority": 9}]
    assert node.server.asked.empty()


def test_each_attachment_has_a_lease_of_its_own(node: Node) -> None:
    """Each with an identifier of its own; GC keeps what is named, of its network."""
    first = plugin.add(node.request())
    second = plugin.add(node.request(container="c2"))
    foreign = plugin.add(node.request(name="other"))
    assert [one["ips"][0]["address"] for one in (first, second, foreign)] == ["10.9.0.10/24", "10.9.0.11/24", "10.9.0.12/24"]
    plugin.gc(node.request())
    assert len(node.records()) == 3
    plugin.gc(node.request(**{"cni.dev/valid-attachments": [{"containerID": "c2", "ifname": "eth0"}]}))
    assert sorted((one["network"], one["container_id"]) for one in node.records()) == [("net", "c2"), ("other", "c1")]
    assert node.server.next(RELEASE).options[61] == b"\0c1/net/eth0"


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


def test_without_a_daemon(node: Node) -> None:
    """STATUS says so with code 50; DEL and GC succeed; the daemon took its files away, but for the leases."""
    pidfile = node.directory / "pid"
    node.stop()
    node.start("-pidfile", str(pidfile), "-broadcast")
    assert int(pidfile.read_text()) == node.daemon.pid
    second = subprocess.run(
        [sys.executable, "-IS", "-c", _DAEMON, str(_ROOT), "daemon", "-socketpath", str(node.socket)],
        stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    assert (second.returncode, "listens on" in second.stderr) == (1, True)
    node.add()
    assert node.server.next(DISCOVER).flags == 0x8000
    node.stop()
    assert not pidfile.exists()
    assert not node.socket.exists()
    with pytest.raises(NotReady) as caught:
        plugin.status(node.request())
    assert caught.value.code == 50
    plugin.delete(node.request())
    plugin.gc(node.request(**{"cni.dev/valid-attachments": []}))


def test_a_server_that_is_not_ours(node: Node) -> None:
    """udhcpd of busybox gives a lease, renews it, and has it back."""
    busybox = need("busybox", "busybox-static")
    node.server.close()
    leases, conf = node.directory / "udhcpd.leases", node.directory / "udhcpd.conf"
    leases.touch()
    conf.write_text(
        f"start 10.9.0.50\nend 10.9.0.60\ninterface srv0\nlease_file {leases}\npidfile {node.directory}/udhcpd.pid\n"
        "auto_time 1\noption subnet 255.255.255.0\noption router 10.9.0.1\noption lease 10\nmin_lease 2\n"
        "option staticroutes 10.5.0.0/16 10.9.0.2\n"
    )
    server = subprocess.Popen([busybox, "udhcpd", "-f", str(conf)], stderr=subprocess.PIPE, text=True)
    try:
        found = node.add({"request": [{"option": "121"}]})
        address = found["ips"][0]["address"]
        assert address.startswith("10.9.0.5")
        assert found["routes"] == [{"dst": "10.5.0.0/16", "gw": "10.9.0.2"}]
        node.wait_for("renewed")
        plugin.delete(node.request())
    finally:
        server.terminate()
        said = server.communicate()[1]
    assert said.count(f"sending ACK to {address.partition('/')[0]}") == 2
    node.server = DhcpServer("srv0")


def test_a_bridge_with_addresses_by_dhcp(node: Node) -> None:
    """As a runtime calls it: the bridge's ADD asks, the pod talks TCP with what it got, DEL leaves no lease."""
    pod = node.directory / "bridged"
    namespaces.pin_namespace(pod)
    with netlink.Socket() as sock:
        links = Links(sock)
        links.add_bridge("cnit1")
        bridge = links.find("cnit1")
        assert bridge is not None
        links.configure(bridge.index, ["10.8.0.1/24"], [])
    server = DhcpServer("cnit1", "10.8.0.1")
    plugins = Plugins([], {"bridge": "cni_plugins.main.bridge", "dhcp": "cni_plugins.ipam.dhcp.plugin"})
    request = node.request(netns=str(pod), type="bridge", bridge="cnit1")
    try:
        result = plugins.call("bridge", "ADD", request)
        assert [(ip["address"], ip["gateway"], ip["interface"]) for ip in result["ips"]] == [("10.8.0.10/24", "10.8.0.1", 2)]
        request.config["prevResult"] = result
        plugins.call("bridge", "CHECK", request)
        with socket.create_server(("10.8.0.1", 0)) as listener:
            with namespaces.inside(str(pod)):
                client = socket.create_connection(listener.getsockname(), timeout=20)
            with client, listener.accept()[0] as accepted:
                assert accepted.getpeername()[0] == "10.8.0.10"
        for _time in range(2):
            plugins.call("bridge", "DEL", request)
        assert node.records() == []
    finally:
        server.close()
        namespaces.unpin_namespace(pod)


def test_fields_of_a_frame_by_wire(node: Node) -> None:
    """The sum over a DISCOVER's header and datagram is right: a server behind a real device would drop it otherwise."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800)) as wire:
        wire.bind(("srv0", 0x0800))
        wire.settimeout(20)
        plugin.add(node.request())
        packet = wire.recv(2048)
    head, udp = packet[:20], packet[20 : struct.unpack_from("!H", packet, 2)[0]]
    assert (head[12:16], head[16:20], struct.unpack_from("!HH", udp)) == (bytes(4), b"\xff" * 4, (68, 67))
    pseudo = head[12:20] + struct.pack("!BBH", 0, 17, len(udp))
    for data in (head, pseudo + udp):
        total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
        assert total % 0xFFFF == 0
