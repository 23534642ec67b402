"""Expressions of nf_tables rules, each with the line of `nft` that it stands for. Cold, no policy."""

from __future__ import annotations

import socket
import struct

from runtime_core.network.nftables import ADDRESS_BYTES, IPV4, IPV6, JUMP, number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_VERDICT, _FIRST, _SECOND = 0, 8, 16
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_EQUAL, _NOT_EQUAL = 0, 1
_MARK, _IN_NAME, _OUT_NAME, _PROTOCOL = 3, 6, 7, 16
_ADDRESS_TYPE, _OF_DESTINATION = 3, 1 << 1
_DROP, _ACCEPT, _RETURN = 0, 1, -5 & 0xFFFFFFFF
_DNAT = 1
_ESTABLISHED_OR_RELATED = 2 | 4
#: family → offset of source and of destination address
ADDRESS_OFFSETS = {IPV4: (12, 16), IPV6: (8, 24)}


def source(family: int, register: int = 0) -> list[Any]:
    """ip saddr"""
    return [_load(_NETWORK_HEADER, ADDRESS_OFFSETS[family][0], ADDRESS_BYTES[family], register)]


def destination(family: int, register: int = 0) -> list[Any]:
    """ip daddr"""
    return [_load(_NETWORK_HEADER, ADDRESS_OFFSETS[family][1], ADDRESS_BYTES[family], register)]


def protocol(register: int = 0) -> list[Any]:
    """meta l4proto"""
    return [_meta(_PROTOCOL, register)]


def source_port() -> list[Any]:
    """th sport"""
    return [_load(_TRANSPORT_HEADER, 0, 2, 0)]


def destination_port(register: int = 0) -> list[Any]:
    """th dport"""
    return [_load(_TRANSPORT_HEADER, 2, 2, register)]


def input_interface(register: int = 0) -> list[Any]:
    """iifname"""
    return [_meta(_IN_NAME, register)]


def output_interface(register: int = 0) -> list[Any]:
    """oifname"""
    return [_meta(_OUT_NAME, register)]


def mark() -> list[Any]:
    """meta mark"""
    return [_meta(_MARK, 0)]


def masked(mask: bytes) -> list[Any]:
    """… and mask"""
    return [_bitwise(mask, bytes(len(mask)))]


def equals(value: bytes, *, negated: bool = False) -> list[Any]:
    """… == value"""
    compared = [(1, number(_FIRST)), (2, number(_NOT_EQUAL if negated else _EQUAL)), (3, [(1, value)])]
    return [_expression("cmp", compared)]


def in_set(name: str) -> list[Any]:
    """… @name"""
    return [_expression("lookup", [(1, name), (2, number(_FIRST))])]


def is_local() -> list[Any]:
    """fib daddr type local"""
    fib = _expression("fib", [(1, number(_FIRST)), (2, number(_ADDRESS_TYPE)), (3, number(_OF_DESTINATION))])
    return [fib, *equals(struct.pack("=I", 2))]


def is_established() -> list[Any]:
    """ct state established,related"""
    state = _expression("ct", [(1, number(_FIRST)), (2, number(0))])
    return [state, _bitwise(struct.pack("=I", _ESTABLISHED_OR_RELATED), bytes(4)), *equals(bytes(4), negated=True)]


def is_marked(bit: int) -> list[Any]:
    """meta mark and bit == bit"""
    value = struct.pack("=I", 1 << bit)
    return [*mark(), *masked(value), *equals(value)]


def set_mark(bit: int) -> list[Any]:
    """meta mark set meta mark or bit"""
    value = 1 << bit
    joined = _bitwise(struct.pack("=I", ~value & 0xFFFFFFFF), struct.pack("=I", value))
    return [*mark(), joined, _expression("meta", [(2, number(_MARK)), (3, number(_FIRST))])]


def dnat_by(family: int, name: str) -> list[Any]:
    """dnat to … map @name, whose data is address . port"""
    lookup = _expression("lookup", [(1, name), (2, number(_FIRST)), (3, number(_SECOND))])
    port = _SECOND + ADDRESS_BYTES[family] // 4
    return [lookup, _expression("nat", [(1, number(_DNAT)), (2, number(family)), (3, number(_SECOND)), (5, number(port))])]


def masquerade() -> list[Any]:
    """masquerade"""
    return [_expression("masq", [])]


def accept() -> list[Any]:
    """accept"""
    return [_verdict(_ACCEPT)]


def drop() -> list[Any]:
    """drop"""
    return [_verdict(_DROP)]


def return_verdict() -> list[Any]:
    """return"""
    return [_verdict(_RETURN)]


def jump(chain: str) -> list[Any]:
    """jump chain"""
    return [_verdict(JUMP, chain)]


def interface_name(name: str) -> bytes:
    """An interface name as nftables compares it: 16 bytes, padded with zeros."""
    return name.encode().ljust(16, b"\0")


PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "sctp": 132}


def _verdict(code: int, chain: str = "") -> list[Any]:
    verdict = [(1, number(code)), *([(2, chain)] if chain else [])]
    return _expression("immediate", [(1, number(_VERDICT)), (2, [(2, verdict)])])


def _meta(key: int, register: int) -> list[Any]:
    return _expression("meta", [(1, number(_FIRST + register)), (2, number(key))])


def _load(base: int, offset: int, length: int, register: int) -> list[Any]:
    where = [(1, number(_FIRST + register)), (2, number(base)), (3, number(offset)), (4, number(length))]
    return _expression("payload", where)


def _bitwise(mask: bytes, flipped: bytes) -> list[Any]:
    operands = [(1, number(_FIRST)), (2, number(_FIRST)), (3, number(len(mask))), (4, [(1, mask)]), (5, [(1, flipped)])]
    return _expression("bitwise", operands)


def _expression(name: str, data: list[Any]) -> list[Any]:
    return [(1, name), (2, data)]
