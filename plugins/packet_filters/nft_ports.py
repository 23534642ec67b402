"""Port maps by nftables: what a packet meets is the same few rules, whatever the number of ports.

    table ip trivet_hostports
      map ports-any { type inet_proto . inet_service : ipv4_addr . inet_service }
      map ports-at  { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service }
      chain ports-prerouting, ports-output { nat, after dstnat
        fib daddr type local dnat to ip daddr . meta l4proto . th dport map @ports-at
        fib daddr type local dnat to meta l4proto . th dport map @ports-any }
      set mark13-any, mark13-at             # those of them whose packets may have to be masqueraded
      chain mark13-… { nat, before that: fib daddr type local … @mark13-… meta mark set meta mark or 0x2000 }
      set masq13-16-near { type ipv4_addr . ipv4_addr }  # a network of /16, and the pod that must not see its sources
      chain masq13-16-postrouting { nat, srcnat
        meta mark and 0x2000 == 0x2000 ip saddr and 255.255.0.0 . ip daddr @masq13-16-near masquerade }
      chain local-guard { filter, raw: iifname != "lo" ip daddr 127.0.0.0/8 drop }

What others translate at dstnat, services above all, is theirs: where one chain has done it, the kernel asks no later one
(CVE-2019-9946). The last is because of route_localnet, without which no loopback address reaches a pod and with which a
pod could reach the node's loopback address (CVE-2020-8558). Maps with conditions have a part ports-<hash> of their own.
Cold.
"""

from __future__ import annotations

import hashlib
import ipaddress
import struct

from plugins.packet_filters import nft_conditions
from plugins.packet_filters.nft_record import Element
from plugins.packet_filters.nft_table import Part, Table
from runtime_core.errors import InvalidArgument
from runtime_core.interfaces.packet_filter import PortMap
from runtime_core.network import nft_expressions as nfx
from runtime_core.network import nftables as nft

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime_core.interfaces.packet_filter import PortOptions
    from runtime_core.network.nftables import Socket

    Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface

_FAMILIES = {4: nft.IPV4, 6: nft.IPV6}
_LOOPBACK = ipaddress.ip_network("127.0.0.0/8")
#: protocol and port, each padded to a register
_PORT, _PORT_BYTES = "!B3xH2x", 8
_NAMES = {number: name for name, number in nfx.PROTOCOLS.items()}


def add(sock: Socket, addresses: list[str], ports: list[PortMap], options: PortOptions, owner: str) -> None:
    for family, parts, elements in _plan(addresses, ports, options):
        _TABLE.put(sock, family, owner, parts, elements)


def remove(sock: Socket, owner: str) -> list[tuple[PortMap, str]]:
    had = [(port, address) for port, address, whose in listed(sock, owner)]
    _TABLE.remove(sock, owner)
    return had


def listed(sock: Socket, owner: str = "") -> list[tuple[PortMap, str, str]]:
    """(port map, pod's address, owner) of all, or of one."""
    if owner:
        attachments = [lookup for family in nft.ADDRESS if (lookup := _TABLE.find(sock, family, owner))]
    else:
        attachments = _TABLE.everything(sock)
    found = []
    for attachment in attachments:
        for element in attachment.elements:
            if element.data:
                found.append((*_read(attachment.family, element), attachment.owner))
    return found


def missing(sock: Socket, addresses: list[str], ports: list[PortMap], options: PortOptions, owner: str) -> list[str]:
    words = []
    for family, parts, elements in _plan(addresses, ports, options):
        for missing in _TABLE.missing(sock, family, owner, parts, elements):
            if isinstance(missing, Part):
                words.append(f"the rules of part {missing.name}")
            elif missing.data:
                words.append(str(_read(family, missing)[0]))
            else:
                words.append(f"an element of set {missing.in_set}")
    return words


def repair(sock: Socket) -> None:
    _TABLE.repair(sock)


def _plan(addresses: list[str], ports: list[PortMap], options: PortOptions) -> list[tuple[int, list[Part], list[Element]]]:
    """(family, parts, elements) for each address that any port leads to."""
    if options.mark_chain:
        raise InvalidArgument("externalSetMarkChain: only the iptables backend has chains of iptables")
    plan = []
    for interface in [ipaddress.ip_interface(address) for address in addresses]:
        fitting = [port for port in ports if not port.host_ip or ipaddress.ip_address(port.host_ip).version == interface.version]
        if fitting:
            parts, elements = _translation(interface, fitting, options)
            if options.is_masquerading:
                more = _marking(interface, fitting, options), _masquerading(interface, options)
                for some_parts, some_elements in more:
                    parts, elements = [*parts, *some_parts], [*elements, *some_elements]
            plan.append((_FAMILIES[interface.version], parts, elements))
    return plan


def _translation(interface: Interface, ports: list[PortMap], options: PortOptions) -> tuple[list[Part], list[Element]]:
    part = _dnat(_FAMILIES[interface.version], *_conditions(interface.version, options))
    elements = []
    for port in ports:
        name, key = _key(port)
        elements.append(Element(f"{part.name}-{name}", key, interface.ip.packed + struct.pack("!HH", port.container_port, 0)))
    return [part], elements


def _marking(interface: Interface, ports: list[PortMap], options: PortOptions) -> tuple[list[Part], list[Element]]:
    part = _mark(_FAMILIES[interface.version], options.mark_bit, *_conditions(interface.version, options))
    return [part], [Element(f"{part.name}-{name}", key) for name, key in map(_key, ports)]


def _masquerading(interface: Interface, options: PortOptions) -> tuple[list[Part], list[Element]]:
    family = _FAMILIES[interface.version]
    if options.masquerades_all:
        near = [ipaddress.ip_interface(f"{interface.ip}/0").network]
    else:
        near = [interface.network, *([_LOOPBACK] if interface.version == 4 else [])]
    parts = [_masq(family, options.mark_bit, network.prefixlen) for network in near]
    elements = [
        Element(f"{part.name}-near", network.network_address.packed + interface.ip.packed)
        for part, network in zip(parts, near, strict=True)
    ]
    guards = [_guard(family)] if interface.version == 4 else []
    return [*{part.name: part for part in parts}.values(), *guards], elements


def _conditions(version: int, options: PortOptions) -> tuple[str, list[Any]]:
    """A suffix that tells conditions apart, and the expressions."""
    words, field = (options.conditions_v4, "conditionsV4") if version == 4 else (options.conditions_v6, "conditionsV6")
    if not words:
        return "", []
    text = " ".join(words)
    return "-" + hashlib.sha256(text.encode()).hexdigest()[:8], nft_conditions.expressions(text, version, field)


def _dnat(family: int, suffix: str, conditions: list[Any]) -> Part:
    name, local = f"ports{suffix}", [*conditions, *nfx.is_local()]
    types = {"any": [nft.PROTOCOL, nft.SERVICE], "at": [nft.ADDRESS[family], nft.PROTOCOL, nft.SERVICE]}
    rules = [[*local, *_load(family, lookup), *nfx.dnat_by(family, f"{name}-{lookup}")] for lookup in ("at", "any")]
    return Part(
        name,
        sets={lookup: (types[lookup], [nft.ADDRESS[family], nft.SERVICE]) for lookup in types},
        chains={
            "prerouting": ("nat", nft.PREROUTING, nft.DSTNAT + 2, rules),
            "output": ("nat", nft.OUTPUT, nft.DSTNAT + 2, rules),
        },
    )


def _mark(family: int, bit: int, suffix: str, conditions: list[Any]) -> Part:
    name, local = f"mark{bit}{suffix}", [*conditions, *nfx.is_local()]
    types = {"any": [nft.PROTOCOL, nft.SERVICE], "at": [nft.ADDRESS[family], nft.PROTOCOL, nft.SERVICE]}
    rules = [[*local, *_load(family, lookup), *nfx.in_set(f"{name}-{lookup}"), *nfx.set_mark(bit)] for lookup in ("at", "any")]
    return Part(
        name,
        sets={lookup: (types[lookup], None) for lookup in types},
        chains={
            "prerouting": ("nat", nft.PREROUTING, nft.DSTNAT + 1, rules),
            "output": ("nat", nft.OUTPUT, nft.DSTNAT + 1, rules),
        },
    )


def _masq(family: int, bit: int, length: int) -> Part:
    name, address = f"masq{bit}-{length}", nft.ADDRESS[family]
    mask = (((1 << length) - 1) << (nft.ADDRESS_BYTES[family] * 8 - length)).to_bytes(nft.ADDRESS_BYTES[family], "big")
    pair = [*nfx.source(family), *nfx.masked(mask), *nfx.destination(family, nft.ADDRESS_BYTES[family] // 4)]
    rule = [*nfx.is_marked(bit), *pair, *nfx.in_set(f"{name}-near"), *nfx.masquerade()]
    return Part(
        name,
        sets={"near": ([address, address], None)},
        chains={"postrouting": ("nat", nft.POSTROUTING, nft.SRCNAT, [rule])},
    )


def _guard(family: int) -> Part:
    foreign = nfx.equals(nfx.interface_name("lo"), negated=True)
    within = [*nfx.masked(_LOOPBACK.netmask.packed), *nfx.equals(_LOOPBACK.network_address.packed)]
    rule = [*nfx.input_interface(), *foreign, *nfx.destination(family), *within, *nfx.drop()]
    return Part("local", chains={"guard": ("filter", nft.PREROUTING, nft.RAW, [rule])})


def _load(family: int, lookup: str) -> list[Any]:
    """The key of map or set `lookup`."""
    first = nft.ADDRESS_BYTES[family] // 4 if lookup == "at" else 0
    address = nfx.destination(family) if lookup == "at" else []
    return [*address, *nfx.protocol(first), *nfx.destination_port(first + 1)]


def _key(port: PortMap) -> tuple[str, bytes]:
    """Of the map or set "any" or "at"."""
    ip = ipaddress.ip_address(port.host_ip) if port.host_ip else None
    key = struct.pack(_PORT, nfx.PROTOCOLS[port.protocol], port.host_port)
    return ("at", ip.packed + key) if ip is not None and not ip.is_unspecified else ("any", key)


def _read(family: int, element: Element) -> tuple[PortMap, str]:
    size = nft.ADDRESS_BYTES[family]
    host = element.key[:-_PORT_BYTES]
    protocol, host_port = struct.unpack(_PORT, element.key[-_PORT_BYTES:])
    container_port, _padding = struct.unpack("!HH", element.data[size:])
    host_ip = str(ipaddress.ip_address(host)) if host else ""
    return PortMap(_NAMES[protocol], host_port, container_port, host_ip), str(ipaddress.ip_address(element.data[:size]))


def _wider(element: Element) -> Element | None:
    """A port of one address is led away by the same port of all of them, when that was mapped first."""
    in_set, _dash, kind = element.in_set.rpartition("-")
    return Element(f"{in_set}-any", element.key[-_PORT_BYTES:]) if kind == "at" and element.data else None


def _part(family: int, name: str) -> Part:
    """By its name: for taking it away, and for mending it."""
    kind, _dash, rest = name.partition("-")
    if kind == "ports" or kind.startswith("mark"):
        suffix = name[len(kind) :]
        part = _dnat(family, suffix, []) if kind == "ports" else _mark(family, int(kind[4:]), suffix, [])
        part.is_complete = not suffix  # of conditions no more is known
        return part
    if kind.startswith("masq"):
        return _masq(family, int(kind[4:]), int(rest))
    return _guard(family)


_TABLE = Table("trivet_hostports", _part, _wider)
