"""Messages of rtnetlink(7) that make links, addresses and routes; pure. Cold."""

from __future__ import annotations

import ipaddress
import os
import socket
import struct

from runtime_core.kernel import netlink
from runtime_core.kernel.netlink import CREATE, EXCL, REPLACE, Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NEWLINK, _SETLINK, _NEWADDR, _DELADDR, _NEWROUTE = 16, 19, 20, 21, 24
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER, _IFLA_PROTINFO = 1, 3, 4, 5, 10, 12
_IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_NET_NS_FD = 18, 20, 28
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_BR_VLAN_FILTERING, _BRPORT_HAIRPIN, _BRPORT_ISOLATED = 7, 4, 33
_MACVLAN_MODE, _MACVLAN_BC_QUEUE, _IPVLAN_MODE, _VLAN_ID = 1, 7, 1, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS = 1, 2, 4, 8
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC, _RTA_METRICS, _RTA_TABLE = 1, 4, 5, 6, 7, 8, 15
_RTAX_MTU, _RTAX_ADVMSS = 2, 8
_IFF_UP = 1
_NODAD, _NOPREFIXROUTE = 0x02, 0x200
_MAIN_TABLE, _BOOT_PROTOCOL, _UNICAST = 254, 3, 1
_UNIVERSE_SCOPE, _LINK_SCOPE = 0, 253
_LINK = struct.Struct("=BxHiII")
MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}
HOST_SCOPE = 254


def link_message(
    kind: str,
    name: str,
    data: list[tuple[int, Any]],
    *,
    mtu: int = 0,
    mac: str = "",
    parent: int = 0,
    master: int = 0,
    namespace: int = -1,
    up: bool = False,
) -> Message:
    """A new link of `kind` with its IFLA_INFO_DATA. With `namespace` it is born there, `parent` staying here."""
    info: list[tuple[int, Any]] = [(_INFO_KIND, kind), *([(_INFO_DATA, data)] if data else [])]
    attributes: list[tuple[int, Any]] = [(_IFLA_IFNAME, name), (_IFLA_LINKINFO, info)]
    for key, value in ((_IFLA_MTU, mtu), (_IFLA_LINK, parent), (_IFLA_MASTER, master)):
        if value:
            attributes.append((key, value))
    if mac:
        attributes.append((_IFLA_ADDRESS, mac_bytes(mac)))
    if namespace >= 0:
        attributes.append((_IFLA_NET_NS_FD, namespace))
    flags = _IFF_UP if up else 0
    return Message(_NEWLINK, _LINK.pack(0, 0, 0, flags, flags), attributes, CREATE | EXCL)


def bridge_message(name: str, *, mtu: int = 0, vlan_filtering: bool = False) -> Message:
    """A new bridge that is up, with a hardware address that does not change with its ports."""
    data = [(_BR_VLAN_FILTERING, b"\1")] if vlan_filtering else []
    # One that is given stays: the kernel would change its own with every port, and neighbours would send to the old one.
    mac = ":".join(f"{byte:02x}" for byte in (0x02, *os.urandom(5)))
    return link_message("bridge", name, data, mtu=mtu, mac=mac, up=True)


def veth_message(name: str, peer: str, *, namespace: int, master: int = 0, mtu: int = 0, mac: str = "") -> Message:
    """A pair whose far end is born in `namespace` (-1: here) under its final name, down; the near end is up."""
    peer_attributes: list[tuple[int, Any]] = [(_IFLA_IFNAME, peer), *([(_IFLA_MTU, mtu)] if mtu else [])]
    if namespace >= 0:
        peer_attributes.append((_IFLA_NET_NS_FD, namespace))
    if mac:
        peer_attributes.append((_IFLA_ADDRESS, mac_bytes(mac)))
    data = [(_VETH_PEER, _LINK.pack(0, 0, 0, 0, 0) + netlink.encode(peer_attributes))]
    return link_message("veth", name, data, mtu=mtu, master=master, up=True)


def macvlan_data(mode: str, broadcast_queue: int = 0) -> list[tuple[int, Any]]:
    """IFLA_INFO_DATA of a macvlan; `mode` is one of MACVLAN_MODES."""
    return [(_MACVLAN_MODE, MACVLAN_MODES[mode]), *([(_MACVLAN_BC_QUEUE, broadcast_queue)] if broadcast_queue else [])]


def ipvlan_data(mode: str) -> list[tuple[int, Any]]:
    """IFLA_INFO_DATA of an ipvlan; `mode` is one of IPVLAN_MODES."""
    return [(_IPVLAN_MODE, struct.pack("=H", IPVLAN_MODES[mode]))]


def vlan_data(vlan: int) -> list[tuple[int, Any]]:
    """IFLA_INFO_DATA of an 802.1Q VLAN with this id."""
    return [(_VLAN_ID, struct.pack("=H", vlan))]


def alias_message(alias: str, *, name: str = "", index: int = 0) -> Message:
    """What IFLA_IFALIAS of a link says from now on; "" takes it away."""
    which = [(_IFLA_IFNAME, name)] if name else []
    return Message(_SETLINK, _LINK.pack(0, 0, index, 0, 0), [*which, (_IFLA_IFALIAS, alias.encode())])


def rename_message(index: int, name: str, alias: str) -> Message:
    """A link that is down gets its name, and its alias."""
    attributes = [(_IFLA_IFNAME, name), (_IFLA_IFALIAS, alias.encode())]
    return Message(_SETLINK, _LINK.pack(0, 0, index, 0, 0), attributes)


def move_message(index: int, namespace: int, name: str, alias: str) -> Message:
    """A link goes to another namespace, and is called `name` there."""
    attributes = [(_IFLA_NET_NS_FD, namespace), (_IFLA_IFNAME, name), (_IFLA_IFALIAS, alias.encode())]
    return Message(_SETLINK, _LINK.pack(0, 0, index, 0, 0), attributes)


def port_message(index: int, *, hairpin: bool, isolated: bool) -> Message:
    """How a bridge treats one of its ports."""
    values = [(_BRPORT_HAIRPIN, hairpin), (_BRPORT_ISOLATED, isolated)]
    port = [(_IFLA_PROTINFO, [(key, bytes([value])) for key, value in values if value])]
    return Message(_SETLINK, _LINK.pack(socket.AF_BRIDGE, 0, index, 0, 0), port)


def address_message(index: int, address: str, *, follows_accept_dad: bool = False, prefix_route: bool = True) -> Message:
    """Add `address` ("10.0.0.1/24") to a link, without duplicate address detection, unless it `follows_accept_dad`: then
    the sysctl accept_dad decides. `prefix_route`: the kernel adds the route to the address's network."""
    interface = ipaddress.ip_interface(address)
    packed = interface.ip.packed
    family = socket.AF_INET if interface.version == 4 else socket.AF_INET6
    flags = _NODAD if interface.version == 6 and not follows_accept_dad else 0
    attributes: list[tuple[int, Any]] = [(_IFA_LOCAL, packed), (_IFA_ADDRESS, packed)]
    if interface.version == 4 and interface.network.prefixlen < 31:
        attributes.append((_IFA_BROADCAST, interface.network.broadcast_address.packed))
    if not prefix_route:
        attributes.append((_IFA_FLAGS, flags | _NOPREFIXROUTE))
    header = struct.pack("=BBBBI", family, interface.network.prefixlen, flags, 0, index)
    return Message(_NEWADDR, header, attributes, CREATE | REPLACE)


def remove_address_message(index: int, address: str) -> Message:
    """A link loses `address` ("10.0.0.1/24")."""
    interface = ipaddress.ip_interface(address)
    family = socket.AF_INET if interface.version == 4 else socket.AF_INET6
    header = struct.pack("=BBBBI", family, interface.network.prefixlen, 0, 0, index)
    return Message(_DELADDR, header, [(_IFA_LOCAL, interface.ip.packed), (_IFA_ADDRESS, interface.ip.packed)])


def route_message(
    index: int,
    destination: str,
    gateway: str,
    *,
    source: str = "",
    mtu: int = 0,
    advmss: int = 0,
    priority: int = 0,
    table: int = _MAIN_TABLE,
    scope: int | None = None,
) -> Message:
    """A route beside those that are there: two to one destination share its traffic, or the later comes first."""
    network = ipaddress.ip_network(destination, strict=False)
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    if scope is None:
        scope = _UNIVERSE_SCOPE if gateway else _LINK_SCOPE
    attributes: list[tuple[int, Any]] = [(_RTA_OIF, index)]
    if network.prefixlen:
        attributes.append((_RTA_DST, network.network_address.packed))
    for key, address in ((_RTA_GATEWAY, gateway), (_RTA_PREFSRC, source)):
        if address:
            attributes.append((key, ipaddress.ip_address(address).packed))
    if priority:
        attributes.append((_RTA_PRIORITY, priority))
    metrics = [(key, value) for key, value in ((_RTAX_MTU, mtu), (_RTAX_ADVMSS, advmss)) if value]
    if metrics:
        attributes.append((_RTA_METRICS, metrics))
    if table > 255:
        attributes.append((_RTA_TABLE, table))
    in_header = table if table <= 255 else 0
    header = struct.pack("=BBBBBBBBI", family, network.prefixlen, 0, 0, in_header, _BOOT_PROTOCOL, scope, _UNICAST, 0)
    return Message(_NEWROUTE, header, attributes, CREATE)


def mac_bytes(mac: str) -> bytes:
    """ "02:00:00:00:00:01" as six bytes."""
    return bytes(int(part, 16) for part in mac.split(":"))
