"""macspoofchk: nftables drops frames of a bridge's port whose source is not the container's MAC address.

    table bridge trivet_cni
      set guarded { type ifname }   set allowed { type ifname . ether_addr }
      chain macspoof { filter, prerouting; iifname @guarded iifname . ether saddr != @allowed drop }

So an ADD changes two elements, whatever the number of containers; the table goes with the last of them. Cold.
"""

from __future__ import annotations

import struct

from runtime_core.errors import Aborted, FailedPrecondition, from_oserror
from runtime_core.kernel.netlink import CREATE, Message
from runtime_core.network import nft_expressions as nfx
from runtime_core.network import nftables as nft
from runtime_core.network.link_messages import mac_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_BRIDGE, _TABLE, _CHAIN, _RESTRICTED, _ALLOWED = 7, "trivet_cni", "macspoof", "guarded", "allowed"
_NAME_BYTES, _PAIR_BYTES = 16, 24
_FIRST_REGISTER, _SECOND_REGISTER = 8, 12
_NEWSET = 10 << 8 | 9
_PAIR_TYPE = nft.INTERFACE_NAME << 6 | 9  # ifname . ether_addr


def restrict_port(port: str, mac: str) -> None:
    """Only `mac` may send by `port`. Idempotent."""

    def messages(sock: nft.Socket) -> list[Message]:
        stale = [pair for pair in _listed(sock, _ALLOWED) if pair.startswith(_name(port)) and pair != _pair(port, mac)]
        removals = [nft.remove_element(_BRIDGE, _TABLE, _ALLOWED, pair) for pair in stale]
        guarding = nft.element(_BRIDGE, _TABLE, _RESTRICTED, _name(port), b"", "")
        allowing = nft.element(_BRIDGE, _TABLE, _ALLOWED, _pair(port, mac), b"", "")
        stands = bool(nft.rules(sock, _BRIDGE, _TABLE, _CHAIN))
        return [*([] if stands else _foundation()), *removals, guarding, allowing]

    _change(messages, f"guarding {port} by nftables")


def unrestrict_ports(ports: list[str]) -> None:
    """Idempotent. With the last of all the table goes."""
    names = {_name(port) for port in ports}

    def messages(sock: nft.Socket) -> list[Message]:
        listed = {in_set: _listed(sock, in_set) for in_set in (_ALLOWED, _RESTRICTED)}
        found = [(in_set, key) for in_set, keys in listed.items() for key in keys if key[:_NAME_BYTES] in names]
        if found and len(found) == sum(map(len, listed.values())):
            return [nft.remove_whole_table(_BRIDGE, _TABLE)]
        return [nft.remove_element(_BRIDGE, _TABLE, in_set, key) for in_set, key in found]

    _change(messages, f"releasing {', '.join(ports)}")


def _change(messages: Callable[[nft.Socket], list[Message]], doing: str) -> None:
    """In a transaction that holds what `messages` read for true."""
    try:
        with nft.Socket() as sock:
            for _attempt in range(nft.ATTEMPTS):
                generation = sock.generation()
                wanted = messages(sock)
                if not wanted or sock.try_transact(wanted, generation, nft.CHANGED):
                    return
    except OSError as error:
        raise from_oserror(error, f"macspoofchk: {doing}") from error
    raise Aborted(f"macspoofchk: {doing}: others have changed nftables {nft.ATTEMPTS} times meanwhile")


def restricted_ports() -> list[str]:
    """The ports of all that are."""
    try:
        with nft.Socket() as sock:
            return sorted(name.rstrip(b"\0").decode() for name in _listed(sock, _RESTRICTED))
    except OSError as error:
        raise from_oserror(error, "macspoofchk: listing the guarded ports") from error


def check_port(port: str, mac: str) -> None:
    """FailedPrecondition when the rule for this port and address is gone."""
    try:
        with nft.Socket() as sock:
            stands = bool(nft.rules(sock, _BRIDGE, _TABLE, _CHAIN)) and _name(port) in _listed(sock, _RESTRICTED)
            allowed = [pair for pair in _listed(sock, _ALLOWED) if pair.startswith(_name(port))]
    except OSError as error:
        raise from_oserror(error, "macspoofchk: looking at nftables") from error
    if not stands or allowed != [_pair(port, mac)]:
        raise FailedPrecondition(f"macspoofchk: the rule that lets {port} send as {mac} alone is gone")


def _guarding(sock: nft.Socket, port: str, mac: str) -> list[Message]:
    stale = [pair for pair in _listed(sock, _ALLOWED) if pair.startswith(_name(port)) and pair != _pair(port, mac)]
    messages = [nft.remove_element(_BRIDGE, _TABLE, _ALLOWED, pair) for pair in stale]
    messages.append(nft.element(_BRIDGE, _TABLE, _RESTRICTED, _name(port), b"", ""))
    messages.append(nft.element(_BRIDGE, _TABLE, _ALLOWED, _pair(port, mac), b"", ""))
    stands = bool(nft.rules(sock, _BRIDGE, _TABLE, _CHAIN))
    return messages if stands else [*_foundation(), *messages]


def _releasing(sock: nft.Socket, names: set[bytes]) -> list[Message]:
    """[] where there is nothing to do; all that the last one leaves goes."""
    listed = [(in_set, key) for in_set in (_ALLOWED, _RESTRICTED) for key in _listed(sock, in_set)]
    ours = [(in_set, key) for in_set, key in listed if key[:_NAME_BYTES] in names]
    messages = [nft.remove_element(_BRIDGE, _TABLE, in_set, key) for in_set, key in ours]
    if len(ours) == len(listed) and nft.table_uses(sock, _BRIDGE, _TABLE) is not None:
        if nft.chain_uses(sock, _BRIDGE, _TABLE, _CHAIN) is not None:
            messages.append(nft.remove_chain(_BRIDGE, _TABLE, _CHAIN))
        sets = [in_set for in_set in (_ALLOWED, _RESTRICTED) if nft.has_set(sock, _BRIDGE, _TABLE, in_set)]
        messages += [nft.remove_set(_BRIDGE, _TABLE, in_set) for in_set in sets]
        messages.append(nft.remove_table(_BRIDGE, _TABLE))
    return messages


def _foundation() -> list[Message]:
    """Table, chains and sets for the elements; repeated, it changes nothing."""
    allowed = [
        (1, _TABLE), (2, _ALLOWED), (4, nft.number(_PAIR_TYPE)), (5, nft.number(_PAIR_BYTES)), (10, nft.number(2)),
    ]  # fmt: skip
    strangers = [*nfx.input_interface(), *nfx.in_set(_RESTRICTED), *nfx.input_interface(), *_sender_is_not_listed(), *nfx.drop()]
    return [
        nft.table(_BRIDGE, _TABLE),
        nft.new_set(_BRIDGE, _TABLE, _RESTRICTED, [nft.INTERFACE_NAME]),
        Message(_NEWSET, struct.pack("!BBH", _BRIDGE, 0, 0), allowed, CREATE),
        nft.base_chain(_BRIDGE, _TABLE, _CHAIN, "filter", nft.PREROUTING, nft.RAW),
        nft.flush_chain(_BRIDGE, _TABLE, _CHAIN),
        nft.rule(_BRIDGE, _TABLE, _CHAIN, strangers),
    ]


def _sender_is_not_listed() -> list[Any]:
    """… . ether saddr != @allowed"""
    sender = [(1, nft.number(_SECOND_REGISTER)), (2, nft.number(0)), (3, nft.number(6)), (4, nft.number(6))]
    lookup = [(1, _ALLOWED), (2, nft.number(_FIRST_REGISTER)), (5, nft.number(1))]
    return [[(1, "payload"), (2, sender)], [(1, "lookup"), (2, lookup)]]


def _listed(sock: nft.Socket, in_set: str) -> list[bytes]:
    return [key for key, _data, _comment in nft.elements(sock, _BRIDGE, _TABLE, in_set)]


def _name(port: str) -> bytes:
    return nfx.interface_name(port)


def _pair(port: str, mac: str) -> bytes:
    return _name(port) + mac_bytes(mac).ljust(_PAIR_BYTES - _NAME_BYTES, b"\0")
