"""dhcp with its daemon and servers over a veth: leases taken, renewed, lost, given back, and kept over a restart."""

from __future__ import annotations

import json
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cni_plugins.ipam.dhcp import plugin
from cni_plugins.options.ipam_options import NotReady
from runtime_core.cni.invoke import Plugins
from runtime_core.errors import FailedPrecondition, NotFound
from runtime_core.kernel import netlink
from runtime_core.network.links import Links
from runtime_core.testing import namespaces
from runtime_core.testing.tools import require_program
from tests.kernel.cni.ipam_dhcp_node import DAEMON, ROOT, Node
from tests.support.dhcp_server import ACK, DISCOVER, NAK, RELEASE, REQUEST, DhcpServer


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


def test_without_a_daemon(node: Node) -> None:
    """STATUS says so with code 50; DEL and GC succeed; the daemon took its files away, but for the leases."""
    pidfile = node.directory / "pid"
    node.stop()
    node.start("-pidfile", str(pidfile), "-broadcast")
    assert int(pidfile.read_text()) == node.daemon.pid
    second = subprocess.run(
        [sys.executable, "-IS", "-c", DAEMON, str(ROOT), "daemon", "-socketpath", str(node.socket)],
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


def test_fifty_at_once(node: Node) -> None:
    """On one link, with one hardware address: each answer finds its question, and every lease is kept."""

    def add(number: int) -> str:
        return str(plugin.add(node.request(container=f"c{number}"))["ips"][0]["address"])

    with ThreadPoolExecutor(50) as threads:
        addresses = list(threads.map(add, range(50)))
        assert len(set(addresses)) == len(node.records()) == 50
        list(threads.map(lambda number: plugin.delete(node.request(container=f"c{number}")), range(50)))
    assert {node.server.next(RELEASE).options[61] for _time in range(50)} == {f"\0c{n}/net/eth0".encode() for n in range(50)}
    assert node.records() == []


def test_a_socket_that_the_init_system_passes(node: Node) -> None:
    """By sd_listen_fds(3): it is served, and left where it is."""
    path = node.directory / "passed.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        script = f"import os; os.dup2({listener.fileno()}, 3); os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid())); {DAEMON}"
        daemon = subprocess.Popen(
            [sys.executable, "-IS", "-c", script, str(ROOT), "daemon", "-socketpath", str(node.directory / "none")],
            stderr=subprocess.PIPE, pass_fds=[listener.fileno()],
        )  # fmt: skip
    try:
        plugin.status(node.request({"daemonSocketPath": str(path)}))
    finally:
        daemon.terminate()
        daemon.communicate()
    assert daemon.returncode == 0
    assert path.exists()


def test_a_server_that_is_not_ours(node: Node) -> None:
    """udhcpd of busybox gives a lease, renews it, and has it back."""
    busybox = require_program("busybox", "busybox-static")
    node.server.close()
    leases, conf = node.directory / "udhcpd.leases", node.directory / "udhcpd.conf"
    leases.touch()
    conf.write_text(
        f"start 10.9.0.50\nend 10.9.0.59\ninterface srv0\nlease_file {leases}\npidfile {node.directory}/udhcpd.pid\n"
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
    """As a runtime calls it: the bridge's ADD asks, the pod talks TCP with what it got, and DEL gives it back to the server
    while there is a link to say it by."""
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
            with namespaces.in_pinned_namespace(str(pod)):
                client = socket.create_connection(listener.getsockname(), timeout=20)
            with client, listener.accept()[0] as accepted:
                assert accepted.getpeername()[0] == "10.8.0.10"
        for _time in range(2):
            plugins.call("bridge", "DEL", request)
        assert server.next(RELEASE).client_address == socket.inet_aton("10.8.0.10")
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
