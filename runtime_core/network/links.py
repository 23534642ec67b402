"""Links, addresses and routes of one network namespace, by rtnetlink(7). Cold."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct

from runtime_core.kernel import netlink
from runtime_core.kernel.netlink import Message
from runtime_core.network.link_messages import address_message, bridge_message, route_message, veth_message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_NEWLINK, _DELLINK, _GETLINK, _SETLINK = 16, 17, 18, 19
_GETADDR, _GETROUTE = 22, 26
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER = 1, 3, 4, 5, 10
_IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_PROMISCUITY = 18, 20, 30
_INFO_KIND, _INFO_DATA, _INFO_PORT = 1, 2, 5
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_MULTIPATH = 1, 4, 5, 9
_IFF_UP, _IFF_PROMISC = 1, 0x100
_TENTATIVE, _DAD_FAILED = 0x40, 0x08
_MAIN_TABLE = 254
#: what the kernel says of a name that no link has, and of one that is too long for any
_ABSENT = (errno.ENODEV, errno.ERANGE)
_LINK = struct.Struct("=BxHiII")
LONGEST_NAME = 15


class Link:
    """One link as RTM_NEWLINK describes it."""

    __slots__ = ("_attributes", "index", "is_up", "mac", "master", "mtu", "name")

    index: int
    mtu: int

    def __init__(self, payload: bytes) -> None:
        _family, _type, self.index, flags, _change = _LINK.unpack_from(payload)
        self._attributes = attributes = netlink.decode(payload[_LINK.size :])
        self.is_up = bool(flags & _IFF_UP)
        self.name = attributes[_IFLA_IFNAME].rstrip(b"\0").decode(errors="surrogateescape")  # another's may be any bytes
        self.mac = ":".join(f"{byte:02x}" for byte in attributes.get(_IFLA_ADDRESS, b""))
        self.mtu = struct.unpack("=I", attributes[_IFLA_MTU])[0]
        self.master = self._number(_IFLA_MASTER)

    @property
    def kind(self) -> str:
        """ "bridge", "veth"…; "" of a real device."""
        return self._information().get(_INFO_KIND, b"").rstrip(b"\0").decode()

    @property
    def alias(self) -> str:
        """IFLA_IFALIAS, "" without one."""
        return self._attributes.get(_IFLA_IFALIAS, b"").rstrip(b"\0").decode(errors="replace")

    @property
    def parent(self) -> int:
        """Index of the link on which this one stands, or of the other end of a veth."""
        return self._number(_IFLA_LINK)

    @property
    def is_promiscuous(self) -> bool:
        """Whether anybody has made it promiscuous."""
        return self._number(_IFLA_PROMISCUITY) > 0

    @property
    def data(self) -> dict[int, bytes]:
        """What only links of its kind have (IFLA_INFO_DATA)."""
        return netlink.decode(self._information().get(_INFO_DATA, b""))

    @property
    def port(self) -> dict[int, bytes]:
        """What only ports of its master's kind have (IFLA_INFO_SLAVE_DATA)."""
        return netlink.decode(self._information().get(_INFO_PORT, b""))

    def _information(self) -> dict[int, bytes]:
        return netlink.decode(self._attributes.get(_IFLA_LINKINFO, b""))

    def _number(self, key: int) -> int:
        value = self._attributes.get(key)
        return int(struct.unpack("=I", value)[0]) if value else 0


class Links:
    """What can be done through one route socket."""

    def __init__(self, sock: netlink.Socket) -> None:
        self._socket = sock

    @property
    def socket(self) -> netlink.Socket:
        """The route socket, for messages that this class lacks."""
        return self._socket

    def send(self, *messages: Message) -> list[bytes]:
        """All in one go, as `netlink.Socket.request` has it."""
        return self._socket.request(*messages) if messages else []

    def find(self, name: str) -> Link | None:
        """The link of this name; None when there is none."""
        return self._find(_LINK.pack(0, 0, 0, 0, 0), [(_IFLA_IFNAME, name)]) if _is_possible(name) else None

    def find_by_index(self, index: int) -> Link | None:
        """The link of this index; None when there is none."""
        return self._find(_LINK.pack(0, 0, index, 0, 0), [])

    def all(self) -> list[Link]:
        """All links of the namespace."""
        return [Link(payload) for payload in self._socket.dump(Message(_GETLINK, _LINK.pack(0, 0, 0, 0, 0)))]

    def create(self, name: str, *messages: Message) -> Link:
        """Send what makes the link `name` of this namespace; the link."""
        payloads = self._socket.request(*messages, Message(_GETLINK, _LINK.pack(0, 0, 0, 0, 0), [(_IFLA_IFNAME, name)]))
        return Link(payloads[0])

    def add_bridge(self, name: str, *, mtu: int = 0, vlan_filtering: bool = False) -> None:
        """See `bridge_message`; FileExistsError when the name is taken."""
        self._socket.request(bridge_message(name, mtu=mtu, vlan_filtering=vlan_filtering))

    def add_veth(self, name: str, peer: str, *, namespace: int, master: int = 0, mtu: int = 0, mac: str = "") -> None:
        """See `veth_message`."""
        self._socket.request(veth_message(name, peer, namespace=namespace, master=master, mtu=mtu, mac=mac))

    def remove(self, name: str) -> bool:
        """False when there was none."""
        return _is_possible(name) and self._send_ignoring_absent(
            Message(_DELLINK, _LINK.pack(0, 0, 0, 0, 0), [(_IFLA_IFNAME, name)])
        )

    def remove_by_index(self, index: int) -> bool:
        """As `remove`, by index."""
        return self._send_ignoring_absent(Message(_DELLINK, _LINK.pack(0, 0, index, 0, 0)))

    def set_up(self, index: int, *, promiscuous: bool = False) -> None:
        """Set the link up, and promiscuous where asked."""
        flags = _IFF_UP | (_IFF_PROMISC if promiscuous else 0)
        self._socket.request(Message(_NEWLINK, _LINK.pack(0, 0, index, flags, flags)))

    def set_down(self, index: int) -> None:
        """Set the link down."""
        self._socket.request(Message(_NEWLINK, _LINK.pack(0, 0, index, 0, _IFF_UP)))

    def set_master(self, index: int, master: int) -> None:
        """Make the link a port of the link `master`; 0 takes it off."""
        self._socket.request(Message(_SETLINK, _LINK.pack(0, 0, index, 0, 0), [(_IFLA_MASTER, master)]))

    def set_mtu_and_mac(self, index: int, mtu: int, mac: bytes) -> None:
        """What is 0 or empty stays."""
        attributes = [*([(_IFLA_MTU, mtu)] if mtu else []), *([(_IFLA_ADDRESS, mac)] if mac else [])]
        self._socket.request(Message(_SETLINK, _LINK.pack(0, 0, index, 0, 0), attributes))

    def addresses(self, index: int) -> list[str]:
        """Addresses with prefix length of one link."""
        return [address for address, _flags in self._addresses(index)]

    def tentative_addresses(self, index: int) -> tuple[list[str], list[str]]:
        """(addresses whose duplicates are still being looked for, addresses that somebody else has)."""
        listed = list(self._addresses(index))
        failed = [address for address, flags in listed if flags & _DAD_FAILED]
        return [a for a, flags in listed if flags & _TENTATIVE and a not in failed], failed

    def routes(self, index: int) -> set[tuple[str, str]]:
        """(destination, gateway or "") of the routes through one link, whatever their table."""
        found = set()
        for payload, attributes in self._routes():
            for through, gateway in _hops(attributes):
                if through == index:
                    packed = attributes.get(_RTA_DST)
                    default = "0.0.0.0/0" if payload[0] == socket.AF_INET else "::/0"
                    destination = f"{ipaddress.ip_address(packed)}/{payload[1]}" if packed else default
                    found.add((destination, str(ipaddress.ip_address(gateway)) if gateway else ""))
        return found

    def default_route(self) -> int:
        """Index of the link through which the first default route of the main table goes; 0 without one."""
        for payload, attributes in self._routes():
            if payload[1] == 0 and payload[4] == _MAIN_TABLE:
                for through, _gateway in _hops(attributes):
                    if through:
                        return through
        return 0

    def configure(self, index: int, addresses: list[str], routes: list[tuple[str, str]]) -> None:
        """Set a link up with addresses ("10.0.0.2/24") and routes (destination, gateway or ""), in one go."""
        messages = [up_message(index)]
        messages += [address_message(index, address) for address in addresses]
        messages += [route_message(index, destination, gateway) for destination, gateway in routes]
        self._socket.request(*messages)

    def _find(self, header: bytes, attributes: list[tuple[int, str]]) -> Link | None:
        try:
            payloads = self._socket.request(Message(_GETLINK, header, attributes))
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise
        return Link(payloads[0])

    def _send_ignoring_absent(self, message: Message) -> bool:
        try:
            self._socket.request(message)
        except OSError as error:
            if error.errno in _ABSENT:
                return False
            raise
        return True

    def _addresses(self, index: int) -> Iterator[tuple[str, int]]:
        for payload in self._socket.dump(Message(_GETADDR, struct.pack("=BBBBI", 0, 0, 0, 0, 0))):
            _family, length, flags, _scope, link = struct.unpack_from("=BBBBI", payload)
            attributes = netlink.decode(payload[8:])
            packed = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
            if link == index and packed:
                yield f"{ipaddress.ip_address(packed)}/{length}", flags

    def _routes(self) -> Iterator[tuple[bytes, dict[int, bytes]]]:
        for family in (socket.AF_INET, socket.AF_INET6):
            for payload in self._socket.dump(Message(_GETROUTE, struct.pack("=BBBBBBBBI", family, *[0] * 8))):
                yield payload, netlink.decode(payload[12:])


def _is_possible(name: str) -> bool:
    """No link has another name, and a message may not hold it."""
    return len(name) <= LONGEST_NAME


def up_message(index: int) -> Message:
    """The link is set up."""
    return Message(_NEWLINK, _LINK.pack(0, 0, index, _IFF_UP, _IFF_UP))


def _hops(attributes: dict[int, bytes]) -> Iterator[tuple[int, bytes]]:
    """(index of the link, gateway or b"") of each way that a route goes."""
    many = attributes.get(_RTA_MULTIPATH, b"")
    if not many:
        yield struct.unpack("=I", attributes.get(_RTA_OIF, b"\0" * 4))[0], attributes.get(_RTA_GATEWAY, b"")
    while len(many) >= 8:
        length, _flags, _hop, index = struct.unpack_from("=HBBI", many)
        yield index, netlink.decode(many[8:length]).get(_RTA_GATEWAY, b"")
        many = many[max(length, 8) :]
