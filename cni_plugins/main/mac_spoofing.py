"""macspoofchk: frames of a bridge's port that carry another sender than the container's are dropped, by nftables.

    table bridge trivet_cni
      set guarded { ports }   set allowed { port . address }
      chain macspoof { filter, prerouting; iifname @guarded iifname . ether saddr != @allowed drop }

So an ADD changes two elements, whatever the number of containers. Cold.
"""

from __future__ import annotations

import struct

from runtime_core.errors import FailedPrecondition, from_oserror
from runtime_core.kernel import netlink
from runtime_core.kernel.netlink import CREATE, Message
from runtime_core.network import nftables as nft
from runtime_core.network.link_messages import mac_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_BRIDGE, _TABLE, _CHAIN, _GUARDED, _ALLOWED = 7, "trivet_cni", "macspoof", "guarded", "allowed"
_PREROUTING, _PRIORITY = 0, -300
_SUBSYSTEM = 10 << 8
_NEWCHAIN, _GETRULE, _DELRULE, _NEWSET, _NEWELEMENT, _GETELEMENT, _DELELEMENT = 3, 7, 8, 9, 12, 13, 14
_IFNAME, _ETHER = 41, 9  # nft's names for what a set holds
_NAME_BYTES, _PAIR_BYTES = 16, 24
_REGISTER, _SECOND_REGISTER, _VERDICT_REGISTER = 1, 2, 0
_META_IIFNAME, _LINK_HEADER, _SENDER_OFFSET, _INVERT, _DROP = 6, 0, 6, 1, 0


def guard(port: str, mac: str) -> None:
    """Only `mac` may send by `port`. Idempotent."""
    elements = [_elements(_NEWELEMENT, _GUARDED, [_name(port)]), _elements(_NEWELEMENT, _ALLOWED, [_name(port) + _mac(mac)])]
    try:
        with netlink.Socket(netlink.NETFILTER) as sock:
            stale = [pair for pair in _listed(sock, _ALLOWED) if pair.startswith(_name(port))]
            messages = [*_removals(sock, _ALLOWED, stale), *elements]
            if not _has_rule(sock):
                messages = [*_foundation(), *messages]
            nft.transact(sock, messages)
    except OSError as error:
        raise from_oserror(error, f"macspoofchk: guarding {port} by nftables") from error


def release(ports: list[str]) -> None:
    """Idempotent."""
    try:
        with netlink.Socket(netlink.NETFILTER) as sock:
            names = [_name(port) for port in ports]
            pairs = [pair for pair in _listed(sock, _ALLOWED) if pair[:_NAME_BYTES] in names]
            guarded = [name for name in _listed(sock, _GUARDED) if name in names]
            messages = [*_removals(sock, _ALLOWED, pairs), *_removals(sock, _GUARDED, guarded)]
            if messages:
                nft.transact(sock, messages)
    except OSError as error:
        raise from_oserror(error, f"macspoofchk: releasing {', '.join(ports)}") from error


def guarded() -> list[str]:
    """The ports of all that are."""
    try:
        with netlink.Socket(netlink.NETFILTER) as sock:
            return sorted(name.rstrip(b"\0").decode() for name in _listed(sock, _GUARDED))
    except OSError as error:
        raise from_oserror(error, "macspoofchk: listing the guarded ports") from error


def check(port: str, mac: str) -> None:
    try:
        with netlink.Socket(netlink.NETFILTER) as sock:
            stands = _has_rule(sock) and _name(port) in _listed(sock, _GUARDED)
            allowed = [pair for pair in _listed(sock, _ALLOWED) if pair.startswith(_name(port))]
    except OSError as error:
        raise from_oserror(error, "macspoofchk: looking at nftables") from error
    if not stands or allowed != [_name(port) + _mac(mac)]:
        raise FailedPrecondition(f"macspoofchk: the rule that lets {port} send as {mac} alone is gone")


def _foundation() -> list[Message]:
    """Everything that elements stand on; said again, it changes nothing."""
    hook = [(1, _number(_PREROUTING)), (2, struct.pack("!i", _PRIORITY))]
    chain = [(1, _TABLE), (3, _CHAIN), (4, hook), (5, _number(1)), (7, "filter")]
    return [
        nft.table(_BRIDGE, _TABLE),
        _set(_GUARDED, _IFNAME, _NAME_BYTES, 1),
        _set(_ALLOWED, _IFNAME << 6 | _ETHER, _PAIR_BYTES, 2),
        _message(_NEWCHAIN, chain, CREATE),
        _message(_DELRULE, [(1, _TABLE), (2, _CHAIN)]),
        nft.rule(_BRIDGE, _TABLE, _CHAIN, _drop_strangers()),
    ]


def _drop_strangers() -> list[Any]:
    """iifname @guarded iifname . ether saddr != @allowed drop"""
    port = [(1, _number(_REGISTER)), (2, _number(_META_IIFNAME))]
    sender = [
        (1, _number(_SECOND_REGISTER)), (2, _number(_LINK_HEADER)), (3, _number(_SENDER_OFFSET)), (4, _number(6)),
    ]  # fmt: skip
    verdict = [(1, _number(_VERDICT_REGISTER)), (2, [(2, [(1, _number(_DROP))])])]
    expressions: list[tuple[str, list[Any]]] = [
        ("meta", [port[1], port[0]]),
        ("lookup", [(1, _GUARDED), (2, _number(_REGISTER)), (4, _number(1))]),
        ("payload", sender),
        ("lookup", [(1, _ALLOWED), (2, _number(_REGISTER)), (4, _number(2)), (5, _number(_INVERT))]),
        ("immediate", verdict),
    ]
    return [[(1, name), (2, data)] for name, data in expressions]


def _set(name: str, key: int, length: int, number: int) -> Message:
    attributes = [(1, _TABLE), (2, name), (3, _number(0)), (4, _number(key)), (5, _number(length)), (10, _number(number))]
    return _message(_NEWSET, attributes, CREATE)


def _has_rule(sock: netlink.Socket) -> bool:
    try:
        return bool(sock.dump(_message(_GETRULE, [(1, _TABLE), (2, _CHAIN)])))
    except FileNotFoundError:
        return False


def _listed(sock: netlink.Socket, in_set: str) -> list[bytes]:
    try:
        payloads = sock.dump(_message(_GETELEMENT, [(1, _TABLE), (2, in_set)]))
    except FileNotFoundError:
        return []
    listed = [netlink.decode(payload[4:]).get(3, b"") for payload in payloads]
    return [netlink.decode(netlink.decode(item)[1])[1] for items in listed for _kind, item in netlink.items(items)]


def _removals(sock: netlink.Socket, in_set: str, keys: list[bytes]) -> list[Message]:
    return [_elements(_DELELEMENT, in_set, keys)] if keys else []


def _elements(kind: int, in_set: str, keys: list[bytes]) -> Message:
    items = [(1, [(1, [(1, key)])]) for key in keys]
    return _message(kind, [(1, _TABLE), (2, in_set), (3, items)], CREATE if kind == _NEWELEMENT else 0)


def _message(kind: int, attributes: list[Any], flags: int = 0) -> Message:
    return Message(_SUBSYSTEM | kind, struct.pack("!BBH", _BRIDGE, 0, 0), attributes, flags)


def _name(port: str) -> bytes:
    return port.encode().ljust(_NAME_BYTES, b"\0")


def _mac(mac: str) -> bytes:
    return mac_bytes(mac).ljust(_PAIR_BYTES - _NAME_BYTES, b"\0")


def _number(value: int) -> bytes:
    return struct.pack("!I", value)
