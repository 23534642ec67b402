"""Rules of nf_tables, read for what they do with a packet. Cold, no policy.

What iptables-nft writes is read as well: its matches by extensions that nf_tables does not have itself.
"""

from __future__ import annotations

import struct

from plugins.packet_filters import forwarding
from plugins.packet_filters.forwarding import Packet, Rule
from runtime_core.network import nft_reading
from runtime_core.network.nft_expressions import ADDRESS_OFFSETS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime_core.network.nft_reading import BaseChain, Expression
    from runtime_core.network.nftables import Socket

_VERDICTS = {
    0: forwarding.DROPPED, 1: forwarding.ACCEPTED, -1: forwarding.CONTINUE, -3: forwarding.JUMP, -4: forwarding.GOTO,
    -5: forwarding.RETURNED,
}  # fmt: skip
_FAMILIES = {4: 2, 6: 10}
_NETWORK_HEADER = 1
_IN_NAME, _OUT_NAME, _FAMILY, _STATE = 6, 7, 15, 0
#: what a rule does beside deciding
_SILENT = ("counter", "log", "last", "notrack", "objref", "quota")
_HARMLESS_TARGETS = ("LOG", "NFLOG", "MARK", "CONNMARK", "TCPMSS", "TRACE", "CT", "TOS", "DSCP")
_COMPARED = {0: "==", 1: "!="}
#: struct xt_conntrack_mtinfo3: where flags, inverted flags and states are; the flag that states are asked for
_CONNTRACK, _OF_STATE = struct.Struct("=146xHHH"), 1


def outcomes(sock: Socket, chain: BaseChain, packet: Packet) -> set[str]:
    """Of a packet in a base chain, with its policy at the end."""

    def rules(name: str) -> list[Rule]:
        return [_rule(one.expressions, packet) for one in nft_reading.rules(sock, chain.family, chain.table, name)]

    found = forwarding.outcomes(rules(chain.name), rules)
    return found - {forwarding.RETURNED} | {_VERDICTS[chain.policy]} if forwarding.RETURNED in found else found


def _rule(expressions: list[Expression], packet: Packet) -> Rule:
    registers: dict[int, bytes] = {}
    holds: bool | None = True
    for expression in expressions:
        verdict = _ending(expression)
        if verdict is not None:
            return Rule(holds, *verdict)
        one = _holds(expression, registers, packet)
        holds = False if False in (holds, one) else None if None in (holds, one) else True
    return Rule(holds, forwarding.CONTINUE)


def _ending(expression: Expression) -> tuple[str | None, str] | None:
    """(action, target) of an expression that decides."""
    name = expression.name
    if name == "reject":
        return forwarding.DROPPED, ""
    if name == "immediate" and (verdict := expression.verdict()) is not None:
        return _VERDICTS.get(verdict[0]), verdict[1]
    if name == "target" and expression.text(1) not in _HARMLESS_TARGETS:
        return (forwarding.DROPPED if expression.text(1) == "REJECT" else None), ""
    if name in ("queue", "fwd", "synproxy") or (name in ("lookup", "vmap") and expression.number(3) == 0 and expression.has(3)):
        return None, ""
    return None


def _holds(expression: Expression, registers: dict[int, bytes], packet: Packet) -> bool | None:
    """Whether the rule goes on after it; `registers` are what is known of those that earlier ones have loaded."""
    name = expression.name
    if name in _SILENT or name == "target":
        return True
    if name == "match":
        return _extension(expression, packet)
    if name == "cmp":
        return _compared(expression, registers.get(expression.number(1), b""))
    if name in ("meta", "payload", "ct", "bitwise", "immediate"):
        loaded = _loaded(expression, registers, packet)
        if loaded is not None:
            registers[loaded[0]] = loaded[1]
        return True
    return None


def _loaded(expression: Expression, registers: dict[int, bytes], packet: Packet) -> tuple[int, bytes] | None:
    """(register, value or b"") that an expression loads."""
    name, register = expression.name, expression.number(1)
    if name == "bitwise":
        value, mask, flipped = registers.get(register, b""), expression.data(4), expression.data(5)
        if not value or len(mask) != len(value) or len(flipped) != len(value):
            return expression.number(2), b""
        return expression.number(2), bytes(a & b ^ c for a, b, c in zip(value, mask, flipped, strict=True))
    if name == "immediate":
        return register, expression.data(2)
    if not expression.has(1):  # it sets something
        return None
    if name == "meta":
        return register, _meta(expression.number(2), packet)
    if name == "ct":
        return register, struct.pack("=I", packet.state) if expression.number(2) == _STATE else b""
    where = expression.number(2), expression.number(3)
    for offset, address in zip(ADDRESS_OFFSETS[_FAMILIES[packet.version]], (packet.source, packet.destination), strict=True):
        if where == (_NETWORK_HEADER, offset):
            return register, address[: expression.number(4)]
    return register, b""


def _meta(key: int, packet: Packet) -> bytes:
    if key == _FAMILY:
        return bytes([_FAMILIES[packet.version]])
    name = {_IN_NAME: packet.in_name, _OUT_NAME: packet.out_name}.get(key, "")
    return name.encode().ljust(16, b"\0") if name else b""


def _compared(expression: Expression, value: bytes) -> bool | None:
    wanted, how = expression.data(3), _COMPARED.get(expression.number(2))
    if not value or how is None or len(wanted) > len(value):
        return None
    return (value[: len(wanted)] == wanted) == (how == "==")


def _extension(expression: Expression, packet: Packet) -> bool | None:
    """A match that is iptables'."""
    name, information = expression.text(1), expression.raw(3)
    if name == "comment":
        return True
    if name == "conntrack" and len(information) >= _CONNTRACK.size:
        flags, inverted, states = _CONNTRACK.unpack_from(information)
        if flags == _OF_STATE:
            return bool(states & packet.state) != bool(inverted & _OF_STATE)
    return None
