"""The contract suite of `trivet.packetfilter`; who writes a driver subclasses it and overrides `packet_filter`.

Each test has a node of its own, a pod behind it and a host outside, which has no route back to the pod:

    pod  10.88.0.2, fd88::2  ──  node  ──  outside  192.0.2.2, 2001:db8::2; also 10.88.200.2, fd88:0:0:0:200::2
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime_core.interfaces.packet_filter import PacketFilter
from runtime_core.kernel import netlink
from runtime_core.network.links import Links
from runtime_core.network.namespace import open_namespace
from runtime_core.testing import namespaces

_SECONDS = 20.0
_OWNER, _OTHER = "net c1 eth0", "net c2 eth0"
#: IP version → (what the pod is said to have, its address, a host outside, one inside the pod's network, the node's address)
_V4 = ("10.88.0.2/16", "10.88.0.2", "192.0.2.2", "10.88.200.2", "192.0.2.1")
_V6 = ("fd88::2/64", "fd88::2", "2001:db8::2", "fd88::200:0:0:2", "2001:db8::1")
both = pytest.mark.parametrize("case", [_V4, _V6], ids=["IPv4", "IPv6"])


class PacketFilterContract:
    @pytest.fixture
    def packet_filter(self) -> PacketFilter:
        raise NotImplementedError("override packet_filter")

    @pytest.fixture
    def node(self, tmp_path: Path) -> Iterator[Path]:
        """The pod's and the outside's namespaces are pod and outside in this directory."""
        with namespaces.node_namespace():
            try:
                _wire(tmp_path)
                yield tmp_path
            finally:
                for name in ("pod", "outside"):
                    namespaces.unpin_namespace(tmp_path / name)

    @both
    def test_traffic_to_the_outside_has_the_nodes_address(
        self, packet_filter: PacketFilter, node: Path, case: tuple[str, ...]
    ) -> None:
        """As soon as it is masqueraded, until it no longer is."""
        address, pod, outside, _inside, public = case
        assert _seen_source(node, pod, outside) == pod
        packet_filter.masquerade([address], _OWNER)
        assert _seen_source(node, pod, outside) == public
        packet_filter.unmasquerade(_OWNER, [address])
        assert _seen_source(node, pod, outside) == pod

    @both
    def test_traffic_within_the_network_keeps_its_address(
        self, packet_filter: PacketFilter, node: Path, case: tuple[str, ...]
    ) -> None:
        """Pods know each other by their own addresses."""
        address, pod, _outside, inside, _public = case
        packet_filter.masquerade([address], _OWNER)
        assert _seen_source(node, pod, inside) == pod

    def test_it_can_be_listed(self, packet_filter: PacketFilter, node: Path) -> None:
        """Each address, without its length, and whose it is; nothing on a node that has none."""
        assert packet_filter.masqueraded() == []
        packet_filter.masquerade([_V4[0], _V6[0]], _OWNER)
        packet_filter.masquerade(["10.99.0.2/24"], _OTHER)
        assert sorted(packet_filter.masqueraded()) == [("10.88.0.2", _OWNER), ("10.99.0.2", _OTHER), ("fd88::2", _OWNER)]

    def test_masquerade_twice(self, packet_filter: PacketFilter, node: Path) -> None:
        """Said again, it changes nothing; and one unmasquerade undoes both."""
        for _time in range(2):
            packet_filter.masquerade([_V4[0]], _OWNER)
        assert packet_filter.masqueraded() == [("10.88.0.2", _OWNER)]
        packet_filter.unmasquerade(_OWNER, [_V4[0]])
        assert packet_filter.masqueraded() == []

    def test_unmasquerade_is_idempotent(self, packet_filter: PacketFilter, node: Path) -> None:
        """Also on a node that never had any, and for an owner that nobody knows."""
        packet_filter.unmasquerade(_OWNER, [_V4[0]])
        packet_filter.unmasquerade(_OWNER, [])
        packet_filter.masquerade([_V4[0]], _OWNER)
        for _time in range(2):
            packet_filter.unmasquerade(_OWNER, [_V4[0]])
            assert packet_filter.masqueraded() == []

    def test_without_addresses_the_owner_is_looked_up(self, packet_filter: PacketFilter, node: Path) -> None:
        """All of it goes, and nothing of anybody else."""
        packet_filter.masquerade([_V4[0], _V6[0]], _OWNER)
        packet_filter.masquerade(["10.88.0.3/16"], _OTHER)
        packet_filter.unmasquerade(_OWNER, [])
        assert packet_filter.masqueraded() == [("10.88.0.3", _OTHER)]

    def test_an_address_goes_with_its_owner(self, packet_filter: PacketFilter, node: Path) -> None:
        """A late unmasquerade of who had it before leaves it to who has it now."""
        packet_filter.masquerade([_V4[0]], _OTHER)
        packet_filter.unmasquerade(_OWNER, [_V4[0]])
        assert packet_filter.masqueraded() == [("10.88.0.2", _OTHER)]

    def test_an_address_that_was_left_behind_is_taken_over(self, packet_filter: PacketFilter, node: Path) -> None:
        """An earlier pod was never taken down: the address is the new one's, and still works."""
        packet_filter.masquerade([_V4[0]], _OTHER)
        packet_filter.masquerade([_V4[0]], _OWNER)
        assert packet_filter.masqueraded() == [("10.88.0.2", _OWNER)]
        assert _seen_source(node, _V4[1], _V4[2]) == _V4[4]


def _wire(directory: Path) -> None:
    ends = {
        "pod": (["10.88.0.2/24", "fd88::2/80"], ["10.88.0.1/24", "fd88::1/80"]),
        "outside": (
            ["192.0.2.2/24", "10.88.200.2/24", "2001:db8::2/64", "fd88::200:0:0:2/80"],
            ["192.0.2.1/24", "10.88.200.1/24", "2001:db8::1/64", "fd88::200:0:0:1/80"],
        ),
    }
    for name, (far, near) in ends.items():
        namespaces.pin_namespace(directory / name)
        namespace = open_namespace(str(directory / name))
        with netlink.Socket() as sock:
            links = Links(sock)
            links.add_veth(name, "eth0", namespace=namespace)
            link = links.find(name)
            assert link is not None
            links.configure(link.index, near, [])
        os.close(namespace)
        # The outside answers nobody, but IPv6 wants to find its neighbours: only the pods' networks have no way back.
        routes = [("0.0.0.0/0", "10.88.0.1"), ("::/0", "fd88::1")] if name == "pod" else []
        with namespaces.inside(str(directory / name)) as inner:
            link = inner.find("eth0")
            assert link is not None
            inner.configure(link.index, far, routes)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")


def _seen_source(directory: Path, source: str, destination: str) -> str:
    """The address from which the outside hears what the pod says."""
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    with namespaces.inside(str(directory / "outside")):
        listening = socket.socket(family, socket.SOCK_DGRAM)
        listening.bind((destination, 0))
    with namespaces.inside(str(directory / "pod")):
        sending = socket.socket(family, socket.SOCK_DGRAM)
        sending.bind((source, 0))  # a port of its own: the kernel remembers translations by flow
    with listening, sending:
        listening.settimeout(_SECONDS)
        sending.sendto(b"x", listening.getsockname()[:2])
        return str(listening.recvfrom(16)[1][0])
