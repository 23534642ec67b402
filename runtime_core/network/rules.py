"""Policy routing by rtnetlink(7): rules that choose a table by source, and routes moved between tables. Cold, no policy."""

from __future__ import annotations

import ipaddress
import socket
import struct

from runtime_core.kernel import netlink
from runtime_core.kernel.netlink import CREATE, EXCL, REPLACE, Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NEWROUTE, _DELROUTE, _GETROUTE = 24, 25, 26
_NEWRULE, _DELRULE, _GETRULE = 32, 33, 34
_RULE = struct.Struct("=BBBBBBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_FRA_SRC, _FRA_PRIORITY, _FRA_TABLE, _TO_TABLE = 2, 6, 15, 1
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC, _RTA_MULTIPATH, _RTA_CACHEINFO, _RTA_TABLE, _RTA_EXPIRES = (
    1, 4, 5, 7, 9, 12, 15, 23
)  # fmt: skip
_CLONED, _ONLINK, _UNICAST, _OF_KERNEL = 0x200, 0x4, 1, 2
MAIN_TABLE = 254


class Rule:
    """from `source` lookup `table`; `source` is "" for a rule that asks for something else as well, or for none."""

    __slots__ = ("family", "priority", "source", "table")

    def __init__(self, payload: bytes) -> None:
        self.family, destination, length, tos, table, _res1, _res2, action, _flags = _RULE.unpack_from(payload)
        attributes = netlink.decode(payload[_RULE.size :])
        self.table = _number(attributes, _FRA_TABLE) or table
        self.priority = _number(attributes, _FRA_PRIORITY)
        packed = attributes.get(_FRA_SRC, b"")
        is_plain = action == _TO_TABLE and not destination and not tos and length == 8 * len(packed)
        self.source = str(ipaddress.ip_address(packed)) if packed and is_plain else ""


class Route:
    """One route as the kernel lists it, which can be put into another table as it is."""

    __slots__ = ("_attributes", "_header", "family", "index", "is_unicast", "table")

    def __init__(self, payload: bytes) -> None:
        self._header = _ROUTE.unpack_from(payload)
        self._attributes = dict(netlink.items(payload[_ROUTE.size :]))
        self.family, self.is_unicast = self._header[0], self._header[7] == _UNICAST
        self.table = _number(self._attributes, _RTA_TABLE) or self._header[4]
        self.index = _number(self._attributes, _RTA_OIF) or _first_hop(self._attributes.get(_RTA_MULTIPATH, b""))

    @property
    def is_cloned(self) -> bool:
        return bool(self._header[8] & _CLONED)

    @property
    def is_of_kernel(self) -> bool:
        """Made by itself, for an address."""
        return bool(self._header[5] == _OF_KERNEL)

    @property
    def destination(self) -> Any:
        """The destination as an ip_network."""
        packed = self._attributes.get(_RTA_DST) or bytes(4 if self.family == socket.AF_INET else 16)
        return ipaddress.ip_network((packed, self._header[1]))

    @property
    def near_end(self) -> Any:
        """The address that ties the route to a network: its source, otherwise its gateway; None without either."""
        packed = self._attributes.get(_RTA_PREFSRC) or self._attributes.get(_RTA_GATEWAY)
        return ipaddress.ip_address(packed) if packed else None

    @property
    def gateway(self) -> str:
        """The gateway's address, "" without one."""
        packed = self._attributes.get(_RTA_GATEWAY)
        return str(ipaddress.ip_address(packed)) if packed else ""

    def replace_message(self, table: int) -> Message:
        """Into `table`, in the place of one to the same destination."""
        return self._message(_NEWROUTE, table, CREATE | REPLACE)

    def delete_message(self) -> Message:
        """Out of its table."""
        return self._message(_DELROUTE, self.table, 0)

    def _message(self, kind: int, table: int, flags: int) -> Message:
        family, length, source_length, tos, _table, protocol, scope, of_kind, route_flags = self._header
        header = _ROUTE.pack(
            family, length, source_length, tos, _in_header(table), protocol, scope, of_kind, route_flags & _ONLINK
        )  # fmt: skip
        left_out = (_RTA_TABLE, _RTA_CACHEINFO, _RTA_EXPIRES)
        attributes = [(key, value) for key, value in self._attributes.items() if key not in left_out]
        return Message(kind, header, [*attributes, (_RTA_TABLE, table)], flags)


def rule_message(source: str, table: int) -> Message:
    """from `source` lookup `table`, before the rules that are there."""
    return _rule_message(_NEWRULE, source, table, [], CREATE | EXCL)


def remove_rule_message(rule: Rule) -> Message:
    """Delete a rule, recognised by source, table and priority."""
    return _rule_message(_DELRULE, rule.source, rule.table, [(_FRA_PRIORITY, rule.priority)], 0)


def rules(sock: netlink.Socket) -> list[Rule]:
    """Of both families, where the kernel has them."""
    return [Rule(payload) for payload in _dump(sock, _GETRULE, _RULE)]


def routes(sock: netlink.Socket) -> list[Route]:
    """Of both families and every table."""
    found = [Route(payload) for payload in _dump(sock, _GETROUTE, _ROUTE)]
    return [route for route in found if not route.is_cloned]


def free_table(taken: set[int], first: int) -> int:
    """The lowest number from `first` on that is not in `taken`."""
    table = first
    while table in taken:
        table += 1
    return table


def _rule_message(kind: int, source: str, table: int, more: list[tuple[int, Any]], flags: int) -> Message:
    address = ipaddress.ip_address(source)
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    header = _RULE.pack(family, 0, address.max_prefixlen, 0, _in_header(table), 0, 0, _TO_TABLE, 0)
    return Message(kind, header, [(_FRA_SRC, address.packed), (_FRA_TABLE, table), *more], flags)


def _dump(sock: netlink.Socket, kind: int, header: struct.Struct) -> list[bytes]:
    return [
        payload
        for family in (socket.AF_INET, socket.AF_INET6)
        for payload in sock.dump(Message(kind, header.pack(family, *[0] * 8)))
        if payload[0] == family
    ]


def _in_header(table: int) -> int:
    return table if table <= 255 else 0


def _number(attributes: dict[int, bytes], key: int) -> int:
    value = attributes.get(key)
    return int(struct.unpack("=I", value)[0]) if value else 0


def _first_hop(many: bytes) -> int:
    return int(struct.unpack_from("=HBBI", many)[3]) if len(many) >= 8 else 0
