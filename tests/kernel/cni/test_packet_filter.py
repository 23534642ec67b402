"""What the packet filters leave behind, what a call costs beside thousands of others, and SCTP without a socket for it."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from plugins.packet_filters import ipt_command
from plugins.packet_filters.iptables import IptablesFilter
from plugins.packet_filters.nftables import NftablesFilter
from runtime_core.errors import InvalidArgument
from runtime_core.interfaces.packet_filter import AdmissionOptions, PacketFilter, PortMap, PortOptions
from runtime_core.kernel import netlink
from runtime_core.network import conntrack
from runtime_core.network import nftables as nft
from runtime_core.network.namespace import open_namespace
from runtime_core.testing import namespaces
from runtime_core.testing.tools import require_program
from tests.kernel.cni.main_node import on, run, uplink
from tests.kernel.cni.port_traffic import filters, rules

_PODS, _OWNER = ["10.77.0.2/24", "fd77::2/64"], "net c1 eth0"
_WEB = PortMap("tcp", 8080, 80)
_USUAL = PortOptions()


@pytest.fixture
def node() -> Iterator[None]:
    with namespaces.node_namespace():
        yield


@pytest.fixture(params=["nftables", "iptables"])
def driver(request: pytest.FixtureRequest, node: None) -> PacketFilter:
    if request.param == "iptables":
        require_program("iptables", "iptables")
        return IptablesFilter()
    return NftablesFilter()


def _come(driver: PacketFilter, pods: list[str], port: int, owner: str) -> None:
    driver.masquerade(pods, owner)
    driver.map_ports(pods, [PortMap("tcp", port, 80), PortMap("udp", port, 53, "192.0.2.1")], _USUAL, owner)
    driver.admit(pods, AdmissionOptions(bridge="cni0", is_isolated=True), owner)


def _go(driver: PacketFilter, pods: list[str], owner: str) -> None:
    driver.unmap_ports(owner)
    driver.unadmit(owner)
    driver.unmasquerade(owner, pods)


def test_the_last_one_leaves_nothing_behind(driver: PacketFilter) -> None:
    """Of chains, sets and tables, in whatever order things go; and nothing of the others goes before them."""
    others = ["10.78.0.2/16", "fd78::2/64"]
    _come(driver, _PODS, 8080, _OWNER)
    before = filters()
    _come(driver, others, 8081, "net c2 eth0")
    _go(driver, others, "net c2 eth0")
    assert _is_still_as(before, filters())
    driver.unadmit(_OWNER)
    driver.unmasquerade(_OWNER, [])
    driver.unmap_ports(_OWNER)
    assert filters() == ""


@pytest.mark.parametrize("changes", range(1, 8))
def test_a_removal_that_was_killed(driver: PacketFilter, changes: int) -> None:
    """After any of its changes of the packet filter, or before: the same calls again leave nothing."""
    _come(driver, _PODS, 8080, _OWNER)
    pid = os.fork()
    if pid == 0:
        _die_after(changes)
        _go(driver, _PODS, _OWNER)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] in (0, signal.SIGKILL)
    _go(driver, _PODS, _OWNER)
    assert _leftovers() == ""


def test_two_that_are_each_the_last(driver: PacketFilter) -> None:
    """At the same time: chains, sets and tables that both stood on go with whoever is the later one."""
    others = ["10.77.0.3/24", "fd77::3/64"]
    for _time in range(5):
        _come(driver, _PODS, 8080, _OWNER)
        _come(driver, others, 8081, "net c2 eth0")
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda one: _go(driver, *one), [(_PODS, _OWNER), (others, "net c2 eth0")]))
        assert _leftovers() == ""


def _die_after(changes: int) -> None:
    """This process, as if by kill -9, when it has changed the packet filter so many times."""
    left = [changes]

    def deadly(change: Callable[..., None]) -> Callable[..., None]:
        def wrapped(*arguments: Any) -> None:
            change(*arguments)
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

        return wrapped

    nft.Socket.transact = deadly(nft.Socket.transact)  # type: ignore[method-assign]
    ipt_command.restore = deadly(ipt_command.restore)


def _leftovers() -> str:
    """All that is ours, also where no rule is left in it."""
    return "".join(line for line in rules().splitlines() if "trivet" in line.lower() or "CNI-" in line)


def test_nothing_is_left_of_many_at_once(driver: PacketFilter) -> None:
    """Twenty, each coming and going three times while the others do."""

    def live(number: int) -> None:
        pods, owner = [f"10.{number}.0.2/16", f"fd77:{number}::2/64"], f"net c{number} eth0"
        for _time in range(3):
            _come(driver, pods, 9000 + number, owner)
            _go(driver, pods, owner)

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(live, range(20)))
    assert filters() == ""


def test_an_add_beside_two_thousand_others(node: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many messages as beside none, and one transaction each, also for a hundred ports; so for a DEL."""
    driver = NftablesFilter()
    driver.map_ports(["10.77.0.9/24"], [PortMap("tcp", 1, 1)], _USUAL, "net first eth0")
    driver.masquerade(["10.77.0.9/24"], "net first eth0")
    alone = _counted(driver, monkeypatch)
    with nft.Socket() as sock:  # two thousand by a few transactions, which the drivers do not offer
        for start in range(0, 2000, 500):
            numbers = range(start, start + 500)
            targets = [(number, struct.pack("!4sHH", socket.inet_aton("10.77.0.9"), 80, 0)) for number in numbers]
            keys = [(struct.pack("!B3xH2x", 6, 10000 + number), data) for number, data in targets]
            sock.transact([nft.element(nft.IPV4, "trivet_hostports", "ports-any", key, data, "x y z") for key, data in keys])
            pods = [struct.pack("!I", 0x0A4D1000 + number) for number in numbers]
            sock.transact([nft.element(nft.IPV4, "trivet_cni", "pods", pod, "masq-24", "x y z") for pod in pods])
            sock.transact([nft.element(nft.IPV4, "trivet_cni", "sources-24", pod, b"", "") for pod in pods])
            near = [(struct.unpack("!I", pod)[0] & 0xFFFFFF00, pod) for pod in pods]
            sock.transact(
                [nft.element(nft.IPV4, "trivet_cni", "near-24", struct.pack("!I", net) + pod, b"", "") for net, pod in near]
            )
    assert len(driver.masqueraded()) == 2001
    assert _counted(driver, monkeypatch) == alone
    assert {name: transactions for name, (_messages, transactions) in alone.items()} == {
        "masquerade": 1, "map_ports": 1, "map a hundred": 1, "unmap_ports": 1, "unmap a hundred": 1, "unmasquerade": 1,
    }  # fmt: skip


def _counted(driver: NftablesFilter, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, int]]:
    """(messages, transactions) of each call."""
    sent = [0, 0]
    encode, transact = nft.Socket._encode, nft.Socket.transact

    def counting(self: nft.Socket, message: netlink.Message, flags: int) -> bytes:
        sent[0] += 1
        return encode(self, message, flags)

    def transacting(self: nft.Socket, *arguments: object) -> None:
        sent[1] += 1
        transact(self, *arguments)  # type: ignore[arg-type]

    pods, hundred = ["10.77.0.3/24"], [PortMap("tcp", 20000 + number, 80) for number in range(100)]
    calls = {
        "masquerade": lambda: driver.masquerade(pods, "net c3 eth0"),
        "map_ports": lambda: driver.map_ports(pods, [_WEB], _USUAL, "net c3 eth0"),
        "unmap_ports": lambda: driver.unmap_ports("net c3 eth0"),
        "map a hundred": lambda: driver.map_ports(pods, hundred, _USUAL, "net c3 eth0"),
        "unmap a hundred": lambda: driver.unmap_ports("net c3 eth0"),
        "unmasquerade": lambda: driver.unmasquerade("net c3 eth0", pods),
    }
    counted = {}
    with monkeypatch.context() as patch:
        patch.setattr(nft.Socket, "_encode", counting)
        patch.setattr(nft.Socket, "transact", transacting)
        for name, call in calls.items():
            sent[:] = [0, 0]
            call()
            counted[name] = sent[0], sent[1]
    return counted


def test_a_saved_ruleset_can_be_restored(node: None) -> None:
    """What `nft list ruleset` prints, `nft -f` takes, and it is the same to CHECK and DEL."""
    driver, options = NftablesFilter(), PortOptions(conditions_v4=["iifname", "up0"])
    ports = [_WEB, PortMap("udp", 53, 53, "192.0.2.1"), PortMap("sctp", 53, 53, "2001:db8::1")]
    admission = AdmissionOptions(bridge="cni0", is_isolated=True)
    driver.masquerade(_PODS, _OWNER)
    driver.map_ports(_PODS, ports, options, _OWNER)
    driver.admit(_PODS, admission, _OWNER)
    saved = run("nft", "list", "ruleset")
    run("nft", "flush", "ruleset")
    subprocess.run([require_program("nft", "nftables"), "-f", "-"], input=saved, text=True, check=True)
    assert run("nft", "list", "ruleset") == saved
    assert driver.missing_ports(_PODS, ports, options, _OWNER) == []
    assert driver.missing_admission(_PODS, admission, _OWNER) == []
    _go(driver, _PODS, _OWNER)
    assert run("nft", "list", "ruleset") == ""


def test_transactions_know_whether_somebody_was_quicker(node: None) -> None:
    """One that names a generation is refused after any other, and is done without one; the answer to it is not lost."""
    with nft.Socket() as sock, nft.Socket() as other:
        generation = sock.generation()
        other.transact([nft.table(nft.IPV4, "quicker")])
        with pytest.raises(OSError, match="restart"):
            sock.transact([nft.table(nft.IPV4, "slower")], generation)
        assert nft.table_uses(sock, nft.IPV4, "slower") is None
        sock.transact([nft.table(nft.IPV4, "slower")], sock.generation())
        assert nft.table_uses(sock, nft.IPV4, "slower") == 0


def test_an_owner_too_long_for_a_comment(driver: PacketFilter) -> None:
    """It is refused by the name of the field, before anything is made; DEL of it succeeds."""
    owner = f"{'n' * 200} {'c' * 64} eth0"
    for make in (lambda: driver.map_ports(_PODS, [_WEB], _USUAL, owner), lambda: driver.admit(_PODS, AdmissionOptions(), owner)):
        with pytest.raises(InvalidArgument, match="^name: "):
            make()
    driver.unmap_ports(owner)
    driver.unadmit(owner)
    assert filters() == ""


@pytest.mark.parametrize("version", [4, 6])
def test_an_sctp_port(driver: PacketFilter, tmp_path: Path, version: int) -> None:
    """What begins an association reaches the pod's port; and its answer comes from the node's."""
    outside, pod = tmp_path / "outside", tmp_path / "pod"
    addresses = {4: ("198.51.100.1", "10.77.0.2/24", "10.77.0.1/24"), 6: ("2001:db8::1", "fd77::2/64", "fd77::1/64")}
    public, inside, gateway = addresses[version]
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    try:
        for path in (outside, pod):
            namespaces.pin_namespace(path)
        uplink(outside)
        _wire(pod, inside, gateway)
        driver.map_ports([inside], [PortMap("sctp", 8080, 80)], _USUAL, _OWNER)
        with on(outside):
            client = socket.socket(family, socket.SOCK_RAW, 132)
        with on(pod):
            server = socket.socket(family, socket.SOCK_RAW, 132)
        with client, server:
            client.settimeout(20)
            server.settimeout(20)
            client.connect((public, 0))
            client.send(_sctp(5000, 8080, 0, struct.pack("!BBHIIHHI", 1, 0, 20, 7, 65535, 1, 1, 1)))
            data, peer = server.recvfrom(2048)
            packet = data[20:] if version == 4 else data
            assert struct.unpack_from("!HH", packet) == (5000, 80)
            server.sendto(_sctp(80, 5000, 7, struct.pack("!BBHIIHHI", 2, 0, 20, 9, 65535, 1, 1, 1)), (peer[0], 0))
            answer = client.recv(2048)
            assert struct.unpack_from("!HH", answer[20:] if version == 4 else answer) == (8080, 5000)
    finally:
        for path in (outside, pod):
            namespaces.unpin_namespace(path)


def test_flows_are_forgotten_by_port_and_by_pod(node: None) -> None:
    """Of UDP and of this port alone; of one address alone; of what a pod answers; also by a kernel that knows no filters."""
    rules = "add table ip t; add chain ip t c { type nat hook output priority -100; }; add rule ip t c udp dport 5353 dnat to 127.0.0.1:5399"
    run("nft", rules)
    with netlink.Socket(netlink.NETFILTER) as sock:
        _send_to_ports()
        conntrack.forget_to_port(sock, 4, 5354)
        assert _flows() == [("127.0.0.1", 5353), ("127.0.0.1", 5355), ("127.0.0.2", 5353), ("127.0.0.2", 5355)]
        conntrack.forget_to_port(sock, 4, 5355, "127.0.0.2")
        conntrack.forget_to_port(sock, 6, 5355)
        assert _flows() == [("127.0.0.1", 5353), ("127.0.0.1", 5355), ("127.0.0.2", 5353)]
        conntrack.forget_from(sock, "127.0.0.1", 5399)
        assert _flows() == [("127.0.0.1", 5355)]
        conntrack.forget_from(sock, "127.0.0.1", 5399)
        _send_to_ports()
        wanted = [(2, [(1, bytes([17])), (3, struct.pack("!H", 5355))])]
        conntrack.forget_one_by_one(sock, 4, 1, wanted, 0)
    assert {port for _address, port in _flows()} == {5353, 5354}


def test_iptables_of_the_legacy_kind(node: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node's iptables may be either one; what is made there goes there."""
    for name in ("iptables", "ip6tables"):
        (tmp_path / name).symlink_to(require_program(f"{name}-legacy", "iptables"))
        (tmp_path / f"{name}-restore").symlink_to(require_program(f"{name}-legacy-restore", "iptables"))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    driver = IptablesFilter()
    _come(driver, _PODS, 8080, _OWNER)
    said = run("iptables-legacy-save")
    assert all(words in said for words in ("TRIVET-HOSTPORTS", "TRIVET-POSTROUTING", "TRIVET-FORWARD"))
    assert driver.missing_ports(_PODS, [PortMap("tcp", 8080, 80)], _USUAL, _OWNER)  # the second port is there, too
    ports = [PortMap("tcp", 8080, 80), PortMap("udp", 8080, 53, "192.0.2.1")]
    assert driver.missing_ports(_PODS, ports, _USUAL, _OWNER) == []
    _go(driver, _PODS, _OWNER)
    assert "TRIVET" not in run("iptables-legacy-save") + run("ip6tables-legacy-save")


def test_what_iptables_is_told_is_one_word_each(node: None) -> None:
    """Whatever an interface is called."""
    require_program("iptables", "iptables")
    owner = "net c1 a\"b'c\\d#"
    driver = IptablesFilter()
    driver.map_ports(_PODS[:1], [_WEB], _USUAL, owner)
    assert driver.mapped_ports() == [(_WEB, "10.77.0.2", owner)]
    assert driver.unmap_ports(owner) == [(_WEB, "10.77.0.2")]
    assert ipt_command.rules(4, "nat", "TRIVET-HOSTPORTS") is None


def _is_still_as(before: str, now: str) -> bool:
    return sorted(before.splitlines()) == sorted(now.splitlines())


def _wire(pod: Path, inside: str, gateway: str) -> None:
    target = open_namespace(str(pod))
    with on(None) as links:
        links.add_veth("pod0", "eth0", namespace=target)
        near = links.find("pod0")
        assert near is not None
        links.configure(near.index, [gateway], [])
    with on(pod) as links:
        far = links.find("eth0")
        assert far is not None
        links.configure(far.index, [inside], [("::/0" if ":" in inside else "0.0.0.0/0", gateway.partition("/")[0])])
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")


def _sctp(source: int, destination: int, tag: int, chunk: bytes) -> bytes:
    """A packet of one chunk (RFC 9260, section 3)."""
    header = struct.pack("!HHI", source, destination, tag)
    return header + struct.pack("<I", _crc32c(header + bytes(4) + chunk)) + chunk


def _crc32c(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _bit in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def _send_to_ports() -> None:
    for address in ("127.0.0.1", "127.0.0.2"):
        for port in (5353, 5354, 5355):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.sendto(b"x", (address, port))


def _flows() -> list[tuple[str, int]]:
    """Where the node's UDP flows were begun to."""
    found = []
    with netlink.Socket(netlink.NETFILTER) as sock:
        for payload in sock.dump(netlink.Message(1 << 8 | 1, struct.pack("!BBH", 2, 0, 0))):
            original = netlink.decode(netlink.decode(payload[4:])[1])
            ports = netlink.decode(original[2])
            if ports[1] == bytes([17]):
                found.append((socket.inet_ntoa(netlink.decode(original[1])[2]), int.from_bytes(ports[3], "big")))
    return sorted(found)
