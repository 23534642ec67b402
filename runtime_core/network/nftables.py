"""Messages of nf_tables (include/uapi/linux/netfilter/nf_tables.h), and transactions of them. Cold, no policy."""

from __future__ import annotations

import struct

from runtime_core.kernel import netlink
from runtime_core.kernel.netlink import CREATE, Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

IPV4, IPV6 = 2, 10
POSTROUTING, SRCNAT = 4, 100
ACCEPT, JUMP = 1, -3 & 0xFFFFFFFF
_SUBSYSTEM = 10 << 8
_BEGIN, _END = 0x10, 0x11
_NEWTABLE, _NEWCHAIN, _NEWRULE, _DELRULE = 0, 3, 6, 8
_NEWSET, _NEWELEMENT, _GETELEMENT, _DELELEMENT = 9, 12, 13, 14
_MAP, _VERDICT_TYPE = 8, 0xFFFFFF00
_VERDICT_REGISTER, _REGISTER = 0, 1
_NETWORK_HEADER, _EQUAL = 1, 0
#: family → (set key type, address bytes, offset of source and of destination address)
_ADDRESS = {IPV4: (7, 4, 12, 16), IPV6: (8, 16, 8, 24)}


def transact(sock: netlink.Socket, messages: list[Message]) -> None:
    """All of them, or none and the OSError of the first refusal."""
    scope = struct.pack("!BBH", 0, 0, 10)
    sock.batch(Message(_BEGIN, scope), messages, Message(_END, scope))


def table(family: int, name: str) -> Message:
    return _message(_NEWTABLE, family, [(1, name)], CREATE)


def chain(family: int, in_table: str, name: str) -> Message:
    return _message(_NEWCHAIN, family, [(1, in_table), (3, name)], CREATE)


def nat_chain(family: int, in_table: str, name: str, hook: int, priority: int) -> Message:
    where = [(1, _number(hook)), (2, _number(priority))]
    return _message(_NEWCHAIN, family, [(1, in_table), (3, name), (4, where), (7, "nat")], CREATE)


def flush_chain(family: int, in_table: str, name: str) -> Message:
    return _message(_DELRULE, family, [(1, in_table), (2, name)])


def verdict_map(family: int, in_table: str, name: str) -> Message:
    """A map from address to verdict."""
    key, length, _source, _destination = _ADDRESS[family]
    attributes = [
        (1, in_table), (2, name), (3, _number(_MAP)), (4, _number(key)), (5, _number(length)),
        (6, _number(_VERDICT_TYPE)), (10, _number(1)),
    ]  # fmt: skip
    return _message(_NEWSET, family, attributes, CREATE)


def rule(family: int, in_table: str, in_chain: str, expressions: list[Any]) -> Message:
    attributes = [(1, in_table), (2, in_chain), (4, [(1, expression) for expression in expressions])]
    return _message(_NEWRULE, family, attributes, CREATE | netlink.APPEND)


def element(family: int, in_table: str, in_map: str, address: bytes, target: str, comment: str) -> Message:
    """address → jump target, with a comment that `elements` gives back."""
    jump = [(2, [(1, _number(JUMP)), (2, target)])]
    text = comment.encode() + b"\0"
    item = [(1, [(1, address)]), (2, jump), (6, struct.pack("BB", 0, len(text)) + text)]
    return _message(_NEWELEMENT, family, [(1, in_table), (2, in_map), (3, [(1, item)])], CREATE)


def remove_element(family: int, in_table: str, in_map: str, address: bytes) -> Message:
    return _message(_DELELEMENT, family, [(1, in_table), (2, in_map), (3, [(1, [(1, [(1, address)])])])])


def elements(sock: netlink.Socket, family: int, in_table: str, in_map: str) -> list[tuple[bytes, str]]:
    """(address, comment) of every element; [] when the map is not there."""
    try:
        payloads = sock.dump(_message(_GETELEMENT, family, [(1, in_table), (2, in_map)]))
    except FileNotFoundError:
        return []
    return _listed(payloads)


def comment(sock: netlink.Socket, family: int, in_table: str, in_map: str, address: bytes) -> str | None:
    """The comment of one element, None when there is no such element."""
    key = [(3, [(1, [(1, [(1, address)])])])]
    try:
        payloads = sock.request(_message(_GETELEMENT, family, [(1, in_table), (2, in_map), *key]))
    except FileNotFoundError:
        return None
    return next((text for _address, text in _listed(payloads)), None)


def _listed(payloads: list[bytes]) -> list[tuple[bytes, str]]:
    found = []
    for payload in payloads:
        listed = netlink.decode(payload[4:]).get(3, b"")
        for _kind, item in netlink.items(listed):
            attributes = netlink.decode(item)
            address = netlink.decode(attributes[1])[1]
            found.append((address, attributes.get(6, b"")[2:].rstrip(b"\0").decode()))
    return found


def jump_by_source(family: int, in_map: str) -> list[Any]:
    """ip saddr vmap @in_map"""
    _key, length, source, _destination = _ADDRESS[family]
    lookup = [(1, in_map), (2, _number(_REGISTER)), (3, _number(_VERDICT_REGISTER))]
    return [_load(source, length), _expression("lookup", lookup)]


def accept_destination(family: int, network: bytes, mask: bytes) -> list[Any]:
    """ip daddr network/mask accept"""
    _key, length, _source, destination = _ADDRESS[family]
    masked = [
        (1, _number(_REGISTER)), (2, _number(_REGISTER)), (3, _number(length)),
        (4, [(1, mask)]), (5, [(1, bytes(length))]),
    ]  # fmt: skip
    compared = [(1, _number(_REGISTER)), (2, _number(_EQUAL)), (3, [(1, network)])]
    verdict = [(1, _number(_VERDICT_REGISTER)), (2, [(2, [(1, _number(ACCEPT))])])]
    return [
        _load(destination, length),
        _expression("bitwise", masked),
        _expression("cmp", compared),
        _expression("immediate", verdict),
    ]


def masquerade() -> list[Any]:
    return [_expression("masq", [])]


def _load(offset: int, length: int) -> list[Any]:
    payload = [(1, _number(_REGISTER)), (2, _number(_NETWORK_HEADER)), (3, _number(offset)), (4, _number(length))]
    return _expression("payload", payload)


def _expression(name: str, data: list[Any]) -> list[Any]:
    return [(1, name), (2, data)]


def _message(kind: int, family: int, attributes: list[Any], flags: int = 0) -> Message:
    return Message(_SUBSYSTEM | kind, struct.pack("!BBH", family, 0, 0), attributes, flags)


def _number(value: int) -> bytes:
    return struct.pack("!I", value)
