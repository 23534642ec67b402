"""Which rules of somebody else drop, on their way through the node, packets of pods that a driver admits. Cold.

A packet is forwarded when every table lets it pass. nftables overrules none of them; iptables the filter table of its own
kind, in which it comes first.
"""

from __future__ import annotations

import ipaddress

from plugins.packet_filters import ipt_command as ipt
from plugins.packet_filters import ipt_forwarding, nft_forwarding
from plugins.packet_filters.forwarding import DROPPED, ESTABLISHED, NEW, Packet
from runtime_core.network import nft_reading
from runtime_core.network import nftables as nft

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime_core.network.nft_reading import BaseChain
    from runtime_core.network.nftables import Socket

_FAMILIES = {4: nft.IPV4, 6: nft.IPV6}
_OURS = ("trivet_admission", "trivet_cni", "trivet_hostports")
_PROGRAMS = {4: "iptables", 6: "ip6tables"}
#: the name of the chain and of its table in iptables of either kind
_CHAIN, _TABLE = "FORWARD", "filter"


def packets(addresses: list[str], interface: str) -> list[Packet]:
    """What each address sends by `interface` of the node, and the answer; of IPv4 anybody's where there is none."""
    ips = [ipaddress.ip_interface(address).ip for address in addresses]
    found = []
    for version, packed in [(ip.version, ip.packed) for ip in ips] or [(4, b"")]:
        found.append(Packet(version, NEW, source=packed, in_name=interface))
        found.append(Packet(version, ESTABLISHED, destination=packed, out_name=interface))
    return found


def kinds_that_may_drop(version: int, sent: list[Packet]) -> list[str]:
    """Those of iptables, of which the executables are here, whose FORWARD may drop one of the packets of this IP version."""
    kinds = [kind for kind in (ipt.default_kind(version), ipt.other_kind(version)) if kind]
    return [kind for kind in kinds if any(DROPPED in one for one in _by_iptables(version, kind, sent))]


def certain_drops(sent: list[Packet], overruled: list[tuple[int, str]]) -> list[str]:
    """In words, each chain in which one of the packets can only be dropped; but for FORWARD of iptables of the IP versions and
    kinds in `overruled`."""
    said, forwards = [], [(_FAMILIES[version], _TABLE, _CHAIN) for version, kind in overruled if kind == "nft"]
    with nft.Socket() as sock:
        for chain in nft_reading.chains_at(sock, nft.FORWARD):
            is_overruled = chain.table in _OURS or (chain.family, chain.table, chain.name) in forwards
            if not is_overruled and _drops(sock, chain, sent):
                said.append(str(chain))
    for version in ipt.FAMILIES:
        if (version, "legacy") not in overruled and {DROPPED} in _by_iptables(version, "legacy", sent):
            said.append(f"chain {_CHAIN} of {_PROGRAMS[version]}-legacy")
    return said


def has_table(version: int, kind: str) -> bool:
    """Whether iptables of this kind has a filter table."""
    if kind == "legacy":
        return _TABLE in ipt.legacy_tables(version)
    with nft.Socket() as sock:
        return nft.table_uses(sock, _FAMILIES[version], _TABLE) is not None


def _by_iptables(version: int, kind: str, sent: list[Packet]) -> list[set[str]]:
    """What can become of each packet of this IP version in its chain FORWARD. The executables are asked only where there are
    tables: they would make them."""
    wanted = [packet for packet in sent if packet.version == version]
    if kind == "nft":
        with nft.Socket() as sock:
            chain = nft_reading.chain(sock, _FAMILIES[version], _TABLE, _CHAIN)
            return [nft_forwarding.outcomes(sock, chain, packet) for packet in wanted] if chain else []
    if not wanted or _TABLE not in ipt.legacy_tables(version):
        return []
    program = "" if ipt.default_kind(version) == kind else kind
    lines = ipt.rules(version, _TABLE, kind=program) if ipt.is_installed(version, program) else None
    return [ipt_forwarding.outcomes(lines, _CHAIN, packet) for packet in wanted] if lines else []


def _drops(sock: Socket, chain: BaseChain, sent: list[Packet]) -> bool:
    seen = [packet for packet in sent if packet.version in chain.versions]
    return any(nft_forwarding.outcomes(sock, chain, packet) == {DROPPED} for packet in seen)
