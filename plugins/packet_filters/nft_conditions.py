"""Conditions of port maps in the words of `nft`, as far as they can be told: the rest is refused by name. Cold."""

from __future__ import annotations

import ipaddress
import re
import struct

from runtime_core.errors import InvalidArgument
from runtime_core.kernel.decimal_number import parse_decimal
from runtime_core.network import nft_expressions as nfx
from runtime_core.network import nftables as nft

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_KNOWN = "ip|ip6 saddr|daddr, iifname, meta mark, meta l4proto, tcp|udp|sctp|th sport|dport; each with ==, != or nothing"
_FAMILIES = {"ip": 4, "ip6": 6}
_HEXADECIMAL = re.compile(r"0[xX][0-9a-fA-F]{1,16}")
_NAME = re.compile(r'"?([^\s"/*]{1,15})"?')


def expressions(text: str, version: int, field: str) -> list[Any]:
    """Of a rule that holds when all conditions do."""
    words, found = text.split(), []
    while words:
        found += _one(words, version, field)
    return found


def _one(words: list[str], version: int, field: str) -> list[Any]:
    first, start = words.pop(0), words[:1]
    if first in _FAMILIES and start in (["saddr"], ["daddr"]):
        if _FAMILIES[first] != version:
            raise InvalidArgument(f"{field}: {first} is not of IPv{version}")
        load = nfx.source if words.pop(0) == "saddr" else nfx.destination
        return _address(load(nft.IPV4 if version == 4 else nft.IPV6), words, version, field)
    if first in (*nfx.PROTOCOLS, "th") and start in (["sport"], ["dport"]):
        load_port = nfx.source_port if words.pop(0) == "sport" else nfx.destination_port
        only = [*nfx.protocol(), *nfx.equals(bytes([nfx.PROTOCOLS[first]]))] if first != "th" else []
        negated, value = _value(words, field)
        return [*only, *load_port(), *nfx.equals(struct.pack("!H", _number(value, 65535, field)), negated=negated)]
    if first == "meta" and start:
        first = words.pop(0)
    negated, value = _value(words, field) if first in ("iifname", "mark", "l4proto") else (False, "")
    if first == "iifname" and (name := _NAME.fullmatch(value)):
        return [*nfx.in_name(), *nfx.equals(nfx.interface_name(name[1]), negated=negated)]
    if first == "mark":
        return [*nfx.mark(), *nfx.equals(struct.pack("=I", _number(value, 0xFFFFFFFF, field)), negated=negated)]
    if first == "l4proto" and value in nfx.PROTOCOLS:
        return [*nfx.protocol(), *nfx.equals(bytes([nfx.PROTOCOLS[value]]), negated=negated)]
    rest = " ".join(word for word in (first, value, *words) if word)
    raise InvalidArgument(f"{field}: {rest!r}: the nftables backend understands {_KNOWN}")


def _address(load: list[Any], words: list[str], version: int, field: str) -> list[Any]:
    negated, value = _value(words, field)
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError:
        network = None
    if network is None or network.version != version:
        raise InvalidArgument(f"{field}: {value!r} is not an IPv{version} address or network")
    return [*load, *nfx.masked(network.netmask.packed), *nfx.equals(network.network_address.packed, negated=negated)]


def _value(words: list[str], field: str) -> tuple[bool, str]:
    negated = words[:1] == ["!="]
    if words[:1] in (["=="], ["!="]):
        words.pop(0)
    if not words:
        raise InvalidArgument(f"{field}: the last condition has no value")
    return negated, words.pop(0)


def _number(text: str, most: int, field: str) -> int:
    value = int(text, 16) if _HEXADECIMAL.fullmatch(text) else parse_decimal(text, most)
    if value is None or value > most:
        raise InvalidArgument(f"{field}: {text!r} is not a number from 0 to {most}")
    return value
