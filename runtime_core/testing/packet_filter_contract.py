"""The contract suite of `trivet.packetfilter`; who writes a driver subclasses it and overrides `packet_filter`.

Each test has a node of its own, a pod behind it and a host outside, which has no route back to the pod:

    pod  10.88.0.2, fd88::2  ──  node  ──  outside  192.0.2.2, 2001:db8::2; also 10.88.200.2, fd88:0:0:0:200::2

The node has 192.0.2.1 and 192.0.2.9, and the same in IPv6.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runtime_core.interfaces.packet_filter import AdmissionOptions, PacketFilter, PortMap, PortOptions
from runtime_core.network import nft_expressions as nfx
from runtime_core.network import nftables as nft
from runtime_core.testing import namespaces
from runtime_core.testing.packet_filter_node import connect_namespaces, seen_source, source_at_server

_OWNER, _OTHER = "net c1 eth0", "net c2 eth0"
#: IP version → (what the pod is said to have, its address, a host outside, one inside the pod's network, the node's address)
_V4 = ("10.88.0.2/16", "10.88.0.2", "192.0.2.2", "10.88.200.2", "192.0.2.1")
_V6 = ("fd88::2/64", "fd88::2", "2001:db8::2", "fd88::200:0:0:2", "2001:db8::1")
_PODS = [_V4[0], _V6[0]]
_WEB = PortMap("tcp", 8080, 80)
_DEFAULT_OPTIONS = PortOptions()
both = pytest.mark.parametrize("case", [_V4, _V6], ids=["IPv4", "IPv6"])


class PacketFilterContract:
    @pytest.fixture
    def packet_filter(self) -> PacketFilter:
        """The driver under test."""
        raise NotImplementedError("override packet_filter")

    @pytest.fixture
    def node(self, tmp_path: Path) -> Iterator[Path]:
        """The pod's and the outside's namespaces are pod and outside in this directory."""
        with namespaces.node_namespace():
            try:
                connect_namespaces(tmp_path)
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
        assert seen_source(node, pod, outside) == pod
        packet_filter.masquerade([address], _OWNER)
        assert seen_source(node, pod, outside) == public
        packet_filter.unmasquerade(_OWNER, [address])
        assert seen_source(node, pod, outside) == pod

    @both
    def test_traffic_within_the_network_keeps_its_address(
        self, packet_filter: PacketFilter, node: Path, case: tuple[str, ...]
    ) -> None:
        """Pods know each other by their own addresses."""
        address, pod, _outside, inside, _public = case
        packet_filter.masquerade([address], _OWNER)
        assert seen_source(node, pod, inside) == pod

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
        assert seen_source(node, _V4[1], _V4[2]) == _V4[4]

    @both
    @pytest.mark.parametrize("protocol", ["tcp", "udp"])
    def test_a_port_of_the_node_leads_to_the_pod(
        self, packet_filter: PacketFilter, node: Path, case: tuple[str, ...], protocol: str
    ) -> None:
        """From outside with its own address; from the node, also by its loopback address; and from the pod itself, which
        must not see its own address; as soon as it is mapped, until it no longer is."""
        address, pod, outside, _inside, public = case
        gateway = "fd88::1" if ":" in pod else "10.88.0.1"
        expected = {"outside": (public, outside), "node": (public, public), "pod": (public, gateway)}
        ways = {origin: (target, source) for origin, (target, source) in expected.items()}
        if ":" not in pod:
            ways["node by 127.0.0.1"] = ("127.0.0.1", gateway)
            Path("/proc/sys/net/ipv4/conf/pod/route_localnet").write_text("1")
        ports = [PortMap(protocol, 8080, 80)]
        assert {
            way: source_at_server(node, protocol, way, target, 8080, pod, 80) for way, (target, _source) in ways.items()
        } == dict.fromkeys(ways)
        packet_filter.map_ports([address], ports, _DEFAULT_OPTIONS, _OWNER)
        seen = {way: source_at_server(node, protocol, way, target, 8080, pod, 80) for way, (target, _source) in ways.items()}
        assert seen == {way: source for way, (_target, source) in ways.items()}
        assert packet_filter.unmap_ports(_OWNER) == [(ports[0], pod)]
        assert source_at_server(node, protocol, "outside", public, 8080, pod, 80) is None

    @both
    def test_a_port_of_somebody_else_is_not_touched(self, packet_filter: PacketFilter, node: Path, case: tuple[str, ...]) -> None:
        """What the node only forwards goes where it was sent (CVE-2025-67499); nor are other ports."""
        address, pod, outside, _inside, public = case
        packet_filter.masquerade([address], _OWNER)  # for the answer, to which the outside knows no way
        packet_filter.map_ports([address], [_WEB], _DEFAULT_OPTIONS, _OWNER)
        assert source_at_server(node, "tcp", "pod", outside, 8080, outside, 8080) == public
        assert source_at_server(node, "tcp", "outside", public, 8081, pod, 80) is None

    @both
    def test_a_port_of_one_address(self, packet_filter: PacketFilter, node: Path, case: tuple[str, ...]) -> None:
        """Of the node's others it is not; two addresses may have it for two ports of the pod. All of a family is all of it."""
        address, pod, outside, _inside, public = case
        other, everywhere = ("2001:db8::9", "::") if ":" in pod else ("192.0.2.9", "0.0.0.0")
        packet_filter.map_ports([address], [PortMap("tcp", 8080, 80, public)], _DEFAULT_OPTIONS, _OWNER)
        assert source_at_server(node, "tcp", "outside", public, 8080, pod, 80) == outside
        assert source_at_server(node, "tcp", "outside", other, 8080, pod, 80) is None
        ports = [PortMap("tcp", 8080, 80, public), PortMap("tcp", 8080, 81, other), PortMap("tcp", 8082, 82, everywhere)]
        packet_filter.map_ports([address], ports, _DEFAULT_OPTIONS, _OWNER)
        assert source_at_server(node, "tcp", "outside", other, 8080, pod, 81) == outside
        assert source_at_server(node, "tcp", "outside", public, 8082, pod, 82) == outside
        assert source_at_server(node, "tcp", "pod", public, 8080, pod, 80) is not None

    def test_an_address_of_the_other_family_is_left_out(self, packet_filter: PacketFilter, node: Path) -> None:
        """It is the other one's of a dual-stack pod."""
        packet_filter.map_ports([_V4[0]], [PortMap("tcp", 8080, 80, "::")], _DEFAULT_OPTIONS, _OWNER)
        assert packet_filter.mapped_ports() == []
        packet_filter.map_ports(_PODS, [PortMap("tcp", 8080, 80, _V6[4])], _DEFAULT_OPTIONS, _OWNER)
        assert [address for _port, address, _owner in packet_filter.mapped_ports()] == [_V6[1]]

    @both
    @pytest.mark.parametrize(
        ("options", "hides_source"),
        [
            (PortOptions(masquerades_all=True), True),
            (PortOptions(mark_bit=20, masquerades_all=True), True),
            (PortOptions(is_masquerading=False), False),
            (PortOptions(is_masquerading=False, masquerades_all=True), False),
        ],
    )
    def test_whom_the_pod_sees(
        self, packet_filter: PacketFilter, node: Path, case: tuple[str, ...], options: PortOptions, hides_source: bool
    ) -> None:
        """The node instead of whoever connects, when everything is masqueraded; by the mark that is wanted."""
        address, pod, outside, _inside, public = case
        packet_filter.map_ports([address], [_WEB], options, _OWNER)
        gateway = "fd88::1" if ":" in pod else "10.88.0.1"
        assert source_at_server(node, "tcp", "outside", public, 8080, pod, 80) == (gateway if hides_source else outside)

    @both
    def test_neighbours_of_the_pod(self, packet_filter: PacketFilter, node: Path, case: tuple[str, ...]) -> None:
        """Whoever is in the pod's network reaches it by the node as well as the pod itself does, and so must be masqueraded:
        the answer would not pass by the node. A connection that is not a port map's keeps its source."""
        address, pod, _outside, inside, _public = case
        near = "fd88::200:0:0:1" if ":" in pod else "10.88.200.1"
        packet_filter.map_ports([address], [_WEB], _DEFAULT_OPTIONS, _OWNER)
        gateway = "fd88::1" if ":" in pod else "10.88.0.1"
        assert source_at_server(node, "tcp", "outside", near, 8080, pod, 80, source=inside) == gateway

    def test_port_maps_can_be_listed(self, packet_filter: PacketFilter, node: Path) -> None:
        """Each with the pod's address and whose it is; nothing on a node that has none, nothing of one without a port."""
        assert packet_filter.mapped_ports() == []
        dns = PortMap("udp", 53, 5353, "192.0.2.1")
        packet_filter.map_ports(_PODS, [_WEB, dns], _DEFAULT_OPTIONS, _OWNER)
        packet_filter.map_ports([_V4[0]], [PortMap("sctp", 8080, 80)], PortOptions(is_masquerading=False), _OTHER)
        listed = [
            (_WEB, _V4[1], _OWNER),
            (dns, _V4[1], _OWNER),
            (PortMap("sctp", 8080, 80), _V4[1], _OTHER),
            (_WEB, _V6[1], _OWNER),
        ]
        assert sorted(packet_filter.mapped_ports(), key=repr) == sorted(listed, key=repr)
        assert sorted(packet_filter.unmap_ports(_OWNER), key=repr) == sorted(
            [(p, a) for p, a, o in listed if o == _OWNER], key=repr
        )
        assert packet_filter.mapped_ports() == [listed[2]]

    def test_many_ports(self, packet_filter: PacketFilter, node: Path) -> None:
        """Forty of them, of which the last one works as the first."""
        ports = [PortMap("tcp", 9000 + number, 80) for number in range(40)]
        packet_filter.map_ports([_V4[0]], ports, _DEFAULT_OPTIONS, _OWNER)
        assert {port for port, _address, _owner in packet_filter.mapped_ports()} == set(ports)
        assert [source_at_server(node, "tcp", "outside", _V4[4], port, _V4[1], 80) for port in (9000, 9039)] == [_V4[2]] * 2
        packet_filter.unmap_ports(_OWNER)
        assert packet_filter.mapped_ports() == []

    def test_map_ports_again(self, packet_filter: PacketFilter, node: Path) -> None:
        """What the owner had is replaced; unmap is idempotent, and knows the owner under another network's name."""
        for ports in ([_WEB, PortMap("udp", 53, 53)], [PortMap("tcp", 8080, 81)], [PortMap("tcp", 8080, 81)]):
            packet_filter.map_ports([_V4[0]], ports, _DEFAULT_OPTIONS, _OWNER)
        assert packet_filter.mapped_ports() == [(PortMap("tcp", 8080, 81), _V4[1], _OWNER)]
        assert packet_filter.unmap_ports("renamed c1 eth0") == [(PortMap("tcp", 8080, 81), _V4[1])]
        assert packet_filter.unmap_ports(_OWNER) == []
        assert packet_filter.mapped_ports() == []

    @both
    @pytest.mark.parametrize("protocol", ["tcp", "udp"])
    @pytest.mark.parametrize(("first", "second"), [("", ""), ("one", "one"), ("", "one"), ("all", "one"), ("all", "")])
    def test_two_want_one_port(
        self, packet_filter: PacketFilter, node: Path, case: tuple[str, ...], protocol: str, first: str, second: str
    ) -> None:
        """The new pod of a rolling update comes before the old one goes: the old one keeps the port, then the new one has it.
        That goes for a port of one address and the same port of all of them, too."""
        address, pod, outside, _inside, public = case
        hosts = {"": "", "one": public, "all": "::" if ":" in pod else "0.0.0.0"}
        old = [PortMap(protocol, 8080, 80, hosts[first])]
        new = [PortMap(protocol, 8080, 81, hosts[second]), PortMap(protocol, 8082, 82)]
        for ports, owner in ((old, _OTHER), (new, _OWNER)):
            packet_filter.map_ports([address], ports, _DEFAULT_OPTIONS, owner)
        for ports, owner in ((old, _OTHER), (new, _OWNER)):
            assert packet_filter.missing_ports([address], ports, _DEFAULT_OPTIONS, owner) == []
        assert len(packet_filter.mapped_ports()) == 3
        assert source_at_server(node, protocol, "outside", public, 8080, pod, 80) == outside
        assert source_at_server(node, protocol, "outside", public, 8082, pod, 82) == outside
        packet_filter.unmap_ports(_OTHER)
        assert source_at_server(node, protocol, "outside", public, 8080, pod, 81) == outside
        packet_filter.unmap_ports(_OWNER)
        assert source_at_server(node, protocol, "outside", public, 8080, pod, 81) is None
        assert packet_filter.mapped_ports() == []

    @both
    def test_who_waits_for_a_port_goes_first(self, packet_filter: PacketFilter, node: Path, case: tuple[str, ...]) -> None:
        """The first one does not see it; nor does it lose the port by being mapped again."""
        address, pod, outside, _inside, public = case
        for _time in range(2):
            packet_filter.map_ports([address], [_WEB], _DEFAULT_OPTIONS, _OWNER)
            packet_filter.map_ports([address], [PortMap("tcp", 8080, 81)], _DEFAULT_OPTIONS, _OTHER)
        assert source_at_server(node, "tcp", "outside", public, 8080, pod, 80) == outside
        packet_filter.unmap_ports(_OTHER)
        assert source_at_server(node, "tcp", "outside", public, 8080, pod, 80) == outside
        assert packet_filter.missing_ports([address], [_WEB], _DEFAULT_OPTIONS, _OWNER) == []
        packet_filter.unmap_ports(_OWNER)
        assert source_at_server(node, "tcp", "outside", public, 8080, pod, 80) is None

    @both
    def test_many_want_one_port(self, packet_filter: PacketFilter, node: Path, case: tuple[str, ...]) -> None:
        """They have it in the order in which they came, but for those who have gone; one that is mapped again keeps its place,
        and one that no longer wants it gives it away."""
        address, pod, outside, _inside, public = case
        for number in range(5):
            packet_filter.map_ports([address], [PortMap("tcp", 8080, 80 + number)], _DEFAULT_OPTIONS, f"net c{number} eth0")
        packet_filter.map_ports([address], [PortMap("tcp", 8080, 81)], _DEFAULT_OPTIONS, "net c1 eth0")
        packet_filter.unmap_ports("net c2 eth0")
        packet_filter.map_ports([address], [PortMap("tcp", 8081, 80)], _DEFAULT_OPTIONS, "net c0 eth0")
        for server_port, owner in ((81, "c1"), (83, "c3"), (84, "c4")):
            assert source_at_server(node, "tcp", "outside", public, 8080, pod, server_port) == outside
            packet_filter.unmap_ports(f"net {owner} eth0")
        assert source_at_server(node, "tcp", "outside", public, 8080, pod, 84) is None
        assert source_at_server(node, "tcp", "outside", public, 8081, pod, 80) == outside

    def test_a_port_of_one_address_and_the_rest(self, packet_filter: PacketFilter, node: Path) -> None:
        """Who has it for one address keeps that one from who comes later for all of them, who has it for the others."""
        packet_filter.map_ports([_V4[0]], [PortMap("tcp", 8080, 80, _V4[4])], _DEFAULT_OPTIONS, _OWNER)
        packet_filter.map_ports([_V4[0]], [PortMap("tcp", 8080, 81)], _DEFAULT_OPTIONS, _OTHER)
        assert source_at_server(node, "tcp", "outside", _V4[4], 8080, _V4[1], 80) == _V4[2]
        assert source_at_server(node, "tcp", "outside", "192.0.2.9", 8080, _V4[1], 81) == _V4[2]
        packet_filter.unmap_ports(_OWNER)
        assert source_at_server(node, "tcp", "outside", _V4[4], 8080, _V4[1], 81) == _V4[2]

    def test_lacking_ports(self, packet_filter: PacketFilter, node: Path) -> None:
        """Nothing where all is as it was made; else in words; also on a node that has none."""
        options = PortOptions(masquerades_all=True)
        assert packet_filter.missing_ports(_PODS, [_WEB], options, _OWNER)
        packet_filter.map_ports(_PODS, [_WEB], options, _OWNER)
        assert packet_filter.missing_ports(_PODS, [_WEB], options, _OWNER) == []
        more = packet_filter.missing_ports(_PODS, [_WEB, PortMap("udp", 53, 53)], options, _OWNER)
        assert any("udp *:53 to 53" in words for words in more)
        assert packet_filter.missing_ports(_PODS, [_WEB], options, _OTHER)

    def test_admission(self, packet_filter: PacketFilter, node: Path) -> None:
        """It can be listed and checked, and is replaced and undone by container and interface."""
        options = AdmissionOptions()
        assert packet_filter.admitted() == []
        assert packet_filter.missing_admission(_PODS, options, _OWNER)
        assert not packet_filter.unadmit(_OWNER)
        for _time in range(2):
            packet_filter.admit(_PODS, options, _OWNER)
        packet_filter.admit(["10.88.0.3/16"], options, _OTHER)
        assert sorted(packet_filter.admitted()) == [("10.88.0.2", _OWNER), ("10.88.0.3", _OTHER), ("fd88::2", _OWNER)]
        assert packet_filter.missing_admission(_PODS, options, _OWNER) == []
        assert packet_filter.unadmit("renamed c1 eth0")
        assert packet_filter.admitted() == [("10.88.0.3", _OTHER)]
        packet_filter.unadmit(_OTHER)
        assert packet_filter.admitted() == []

    def test_lacking_admission_with_a_bridge(self, packet_filter: PacketFilter, node: Path) -> None:
        """An isolated bridge is not one that is only kept from others."""
        packet_filter.admit([_V4[0]], AdmissionOptions(bridge="cni0"), _OWNER)
        assert packet_filter.missing_admission([_V4[0]], AdmissionOptions(bridge="cni0"), _OWNER) == []
        assert packet_filter.missing_admission([_V4[0]], AdmissionOptions(bridge="cni0", is_isolated=True), _OWNER)
        assert packet_filter.missing_admission([_V4[0]], AdmissionOptions(bridge="cni1"), _OWNER)

    def test_what_another_table_drops(self, packet_filter: PacketFilter, node: Path) -> None:
        """It is told by the name of the table, whoever has admitted it; what is dropped of others is not told."""
        packet_filter.admit(_PODS, AdmissionOptions(), _OWNER)
        assert packet_filter.refusals(_PODS, "pod") == packet_filter.refusals([], "") == []
        assert not packet_filter.is_overruled(_PODS, "pod")
        others = [*nfx.input_interface(), *nfx.equals(nfx.interface_name("other")), *nfx.drop()]
        for name, rule in (("lenient", others), ("strict", nfx.drop())):
            with nft.Socket() as sock:
                base = nft.base_chain(nft.IPV4, name, "all", "filter", nft.FORWARD, nft.FILTER)
                sock.transact([nft.table(nft.IPV4, name), base, nft.rule(nft.IPV4, name, "all", rule)])
            said = packet_filter.refusals(_PODS, "pod")
            assert len(said) == (name == "strict")
            assert not packet_filter.is_overruled(_PODS, "pod")
        assert "strict" in said[0]
        assert packet_filter.refusals([_V6[0]], "pod") == []

    def test_many_at_once(self, packet_filter: PacketFilter, node: Path) -> None:
        """Twenty pods come and go at the same time, each with all that there is: nothing is lost, nothing stays."""

        def come(number: int) -> None:
            pods, owner = [f"10.88.1.{number}/16", f"fd88::1:{number}/64"], f"net many{number} eth0"
            packet_filter.masquerade(pods, owner)
            packet_filter.map_ports(pods, [PortMap("tcp", 9000 + number, 80)], _DEFAULT_OPTIONS, owner)
            packet_filter.admit(pods, AdmissionOptions(bridge="cni0"), owner)

        def go(number: int) -> None:
            owner = f"net many{number} eth0"
            packet_filter.unmap_ports(owner)
            packet_filter.unadmit(owner)
            packet_filter.unmasquerade(owner, [f"10.88.1.{number}/16", f"fd88::1:{number}/64"])

        for work, left in ((come, 40), (go, 0)):
            with ThreadPoolExecutor(20) as pool:
                list(pool.map(work, range(20)))
            there = len(packet_filter.masqueraded()), len(packet_filter.mapped_ports()), len(packet_filter.admitted())
            assert there == (left, left, left)
