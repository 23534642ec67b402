"""Links, addresses and routes of one network namespace, by rtnetlink(7). Cold."""

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

_NEWLINK, _DELLINK, _GETLINK, _SETLINK = 16, 17, 18, 19
_NEWADDR, _GETADDR, _NEWROUTE, _GETROUTE = 20, 22, 24, 26
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_PROTINFO = 1, 3, 4, 10, 12
_IFLA_LINKINFO, _IFLA_NET_NS_FD = 18, 28
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_BR_VLAN_FILTERING, _BRPORT_HAIRPIN = 7, 4
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS = 1, 2, 4, 8
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5
_IFF_UP, _IFF_PROMISC = 1, 0x100
_NODAD = 0x02
_MAIN_TABLE, _BOOT_PROTOCOL, _UNICAST = 254, 3, 1
_UNIVERSE_SCOPE, _LINK_SCOPE = 0, 253
_LINK = struct.Struct("=BxHiII")
LONGEST_NAME = 15


class Link:
    __slots__ = ("index", "is_up", "mac", "master", "mtu", "name")

    def __init__(self, payload: bytes) -> None:
        _family, _type, self.index, flags, _change = _LINK.unpack_from(payload)
        attributes = netlink.decode(payload[_LINK.size :])
        self.is_up = bool(flags & _IFF_UP)
        self.name = attributes[_IFLA_IFNAME].rstrip(b"\0").decode()
        self.mac = ":".join(f"{byte:02x}" for byte in attributes.get(_IFLA_ADDRESS, b""))
        self.mtu = struct.unpack("=I", attributes[_IFLA_MTU])[0]
        self.master = struct.unpack("=I", attributes[_IFLA_MASTER])[0] if _IFLA_MASTER in attributes else 0


class Links:
    """What can be done through one route socket."""

    def __init__(self, sock: netlink.Socket) -> None:
        self._socket = sock

    def find(self, name: str) -> Link | None:
        try:
            payloads = self._socket.request(Message(_GETLINK, _LINK.pack(0, 0, 0, 0, 0), [(_IFLA_IFNAME, name)]))
        except OSError as error:
            if error.errno == 19:  # ENODEV
                return None
            raise
        return Link(payloads[0])

    def all(self) -> list[Link]:
        return [Link(payload) for payload in self._socket.dump(Message(_GETLINK, _LINK.pack(0, 0, 0, 0, 0)))]

    def add_bridge(self, name: str, *, mtu: int = 0, vlan_filtering: bool = False) -> None:
        data = [(_BR_VLAN_FILTERING, b"\1")] if vlan_filtering else []
        info = [(_INFO_KIND, "bridge"), (_INFO_DATA, data)]
        # One that is given stays: the kernel would change its own with every port, and neighbours would send to the old one.
        mac = bytes([0x02, *os.urandom(5)])
        attributes: list[tuple[int, Any]] = [(_IFLA_IFNAME, name), (_IFLA_LINKINFO, info), (_IFLA_ADDRESS, mac)]
        if mtu:
            attributes.append((_IFLA_MTU, mtu))
        self._socket.request(Message(_NEWLINK, _LINK.pack(0, 0, 0, _IFF_UP, _IFF_UP), attributes, CREATE | EXCL))

    def add_veth(self, name: str, peer: str, *, namespace: int, master: int = 0, mtu: int = 0, mac: str = "") -> None:
        """A pair whose far end is born in `namespace` under its final name, down; the near end is up."""
        sizes = [(_IFLA_MTU, mtu)] if mtu else []
        far = [(_IFLA_IFNAME, peer), (_IFLA_NET_NS_FD, namespace), *sizes]
        if mac:
            far.append((_IFLA_ADDRESS, mac_bytes(mac)))
        header = _LINK.pack(0, 0, 0, _IFF_UP, _IFF_UP)
        info = [(_INFO_KIND, "veth"), (_INFO_DATA, [(_VETH_PEER, _LINK.pack(0, 0, 0, 0, 0) + netlink.encode(far))])]
        attributes = [(_IFLA_IFNAME, name), (_IFLA_LINKINFO, info), *sizes]
        if master:
            attributes.append((_IFLA_MASTER, master))
        self._socket.request(Message(_NEWLINK, header, attributes, CREATE | EXCL))

    def remove(self, name: str) -> bool:
        """False when there was none."""
        try:
            self._socket.request(Message(_DELLINK, _LINK.pack(0, 0, 0, 0, 0), [(_IFLA_IFNAME, name)]))
        except OSError as error:
            if error.errno == 19:
                return False
            raise
        return True

    def set_up(self, index: int, *, promiscuous: bool = False) -> None:
        flags = _IFF_UP | (_IFF_PROMISC if promiscuous else 0)
        self._socket.request(Message(_NEWLINK, _LINK.pack(0, 0, index, flags, flags)))

    def set_hairpin(self, index: int) -> None:
        port = [(_IFLA_PROTINFO, [(_BRPORT_HAIRPIN, b"\1")])]
        self._socket.request(Message(_SETLINK, _LINK.pack(socket.AF_BRIDGE, 0, index, 0, 0), port))

    def addresses(self, index: int) -> list[str]:
        """Addresses with prefix length of one link."""
        found = []
        for payload in self._socket.dump(Message(_GETADDR, struct.pack("=BBBBI", 0, 0, 0, 0, 0))):
            _family, length, _flags, _scope, link = struct.unpack_from("=BBBBI", payload)
            attributes = netlink.decode(payload[8:])
            packed = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
            if link == index and packed:
                found.append(f"{ipaddress.ip_address(packed)}/{length}")
        return found

    def routes(self, index: int) -> set[tuple[str, str]]:
        """(destination, gateway or "") of the routes through one link, whatever their table."""
        found = set()
        for family, default in ((socket.AF_INET, "0.0.0.0/0"), (socket.AF_INET6, "::/0")):
            for payload in self._socket.dump(Message(_GETROUTE, struct.pack("=BBBBBBBBI", family, *[0] * 8))):
                length = payload[1]
                attributes = netlink.decode(payload[12:])
                if struct.unpack("=I", attributes.get(_RTA_OIF, b"\0" * 4))[0] != index:
                    continue
                packed, gateway = attributes.get(_RTA_DST), attributes.get(_RTA_GATEWAY)
                destination = f"{ipaddress.ip_address(packed)}/{length}" if packed else default
                found.add((destination, str(ipaddress.ip_address(gateway)) if gateway else ""))
        return found

    def configure(self, index: int, addresses: list[str], routes: list[tuple[str, str]]) -> None:
        """Set a link up with addresses ("10.0.0.2/24") and routes (destination, gateway or ""), in one go."""
        messages = [Message(_NEWLINK, _LINK.pack(0, 0, index, _IFF_UP, _IFF_UP))]
        messages += [address_message(index, address) for address in addresses]
        messages += [route_message(index, destination, gateway) for destination, gateway in routes]
        self._socket.request(*messages)


def address_message(index: int, address: str) -> Message:
    interface = ipaddress.ip_interface(address)
    packed = interface.ip.packed
    family = socket.AF_INET if interface.version == 4 else socket.AF_INET6
    flags = 0 if interface.version == 4 else _NODAD  # the address is ours alone: IPAM says so
    attributes: list[tuple[int, Any]] = [(_IFA_LOCAL, packed), (_IFA_ADDRESS, packed)]
    if interface.version == 4 and interface.network.prefixlen < 31:
        attributes.append((_IFA_BROADCAST, interface.network.broadcast_address.packed))
    header = struct.pack("=BBBBI", family, interface.network.prefixlen, flags, 0, index)
    return Message(_NEWADDR, header, attributes, CREATE | REPLACE)


def route_message(index: int, destination: str, gateway: str) -> Message:
    network = ipaddress.ip_network(destination, strict=False)
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    scope = _UNIVERSE_SCOPE if gateway else _LINK_SCOPE
    attributes: list[tuple[int, Any]] = [(_RTA_OIF, index)]
    if network.prefixlen:
        attributes.append((_RTA_DST, network.network_address.packed))
    if gateway:
        attributes.append((_RTA_GATEWAY, ipaddress.ip_address(gateway).packed))
    header = struct.pack("=BBBBBBBBI", family, network.prefixlen, 0, 0, _MAIN_TABLE, _BOOT_PROTOCOL, scope, _UNICAST, 0)
    return Message(_NEWROUTE, header, attributes, CREATE | EXCL)


def mac_bytes(mac: str) -> bytes:
    return bytes(int(part, 16) for part in mac.split(":"))
