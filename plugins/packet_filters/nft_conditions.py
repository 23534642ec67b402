"""Conditions of port maps in the words of `nft`: the plain ones are known here, the rest is for nft itself. Cold."""

from __future__ import annotations

import ipaddress
import re
import struct

from runtime_core.kernel.decimal_number import parse_decimal
from runtime_core.network import nft_expressions as nfx
from runtime_core.network import nftables as nft

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FAMILIES = {"ip": 4, "ip6": 6}
_HEXADECIMAL = re.compile(r"0[xX][0-9a-fA-F]{1,16}")
_NAME = re.compile(r'("?)([^\s"/*{},@$;#\\]{1,15})\1')


class _Unknown(ValueError):
    """Not a plain condition."""


def expressions(text: str, version: int, field: str) -> list[Any]:
    """Of a rule that holds when all conditions do. InvalidArgument naming `field` where nft does not take them, either."""
    words, found = text.split(), []
    try:
        while words:
            found += _one(words, version)
    except _Unknown:
        from plugins.packet_filters import nft_translation  # here: it costs a process, and few have such conditions

        return nft_translation.expressions(text, version, field)
    return found


def _one(words: list[str], version: int) -> list[Any]:
    first, start = words.pop(0), words[:1]
    if first in _FAMILIES and start in (["saddr"], ["daddr"]) and _FAMILIES[first] == version:
        load = nfx.source if words.pop(0) == "saddr" else nfx.destination
        return _address(load(nft.IPV4 if version == 4 else nft.IPV6), words, version)
    if first in (*nfx.PROTOCOLS, "th") and start in (["sport"], ["dport"]):
        load_port = nfx.source_port if words.pop(0) == "sport" else nfx.destination_port
        only = [*nfx.protocol(), *nfx.equals(bytes([nfx.PROTOCOLS[first]]))] if first != "th" else []
        negated, value = _value(words)
        return [*only, *load_port(), *nfx.equals(struct.pack("!H", _number(value, 65535)), negated=negated)]
    if first == "meta" and start:
        first = words.pop(0)
    negated, value = _value(words) if first in ("iifname", "mark", "l4proto") else (False, "")
    if first == "iifname" and (name := _NAME.fullmatch(value)):
        return [*nfx.input_interface(), *nfx.equals(nfx.interface_name(name[2]), negated=negated)]
    if first == "mark":
        return [*nfx.mark(), *nfx.equals(struct.pack("=I", _number(value, 0xFFFFFFFF)), negated=negated)]
    if first == "l4proto" and value in nfx.PROTOCOLS:
        return [*nfx.protocol(), *nfx.equals(bytes([nfx.PROTOCOLS[value]]), negated=negated)]
    raise _Unknown(first)


def _address(load: list[Any], words: list[str], version: int) -> list[Any]:
    negated, value = _value(words)
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError:
        network = None
    if network is None or network.version != version:
        raise _Unknown(value)
    return [*load, *nfx.masked(network.netmask.packed), *nfx.equals(network.network_address.packed, negated=negated)]


def _value(words: list[str]) -> tuple[bool, str]:
    negated = words[:1] == ["!="]
    if words[:1] in (["=="], ["!="]):
        words.pop(0)
    if not words:
        raise _Unknown("")
    return negated, words.pop(0)


def _number(text: str, most: int) -> int:
    value = int(text, 16) if _HEXADECIMAL.fullmatch(text) else parse_decimal(text, most)
    if value is None or value > most:
        raise _Unknown(text)
    return value
