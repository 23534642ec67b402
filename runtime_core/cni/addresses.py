"""Addresses as configurations and results write them, in one grammar for all; pure. Cold."""

from __future__ import annotations

import ipaddress

from runtime_core.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
    from typing import Any

_MAPPED_BITS = 96


def address(text: Any, field: str) -> IPv4Address | IPv6Address:
    """Without prefix length. InvalidArgument naming `field` for anything else."""
    if isinstance(text, str) and "/" not in text and "%" not in text:
        try:
            found = ipaddress.ip_address(text)
        except ValueError:
            pass
        else:
            _refuse_mapped(found, text, "", field)
            return found
    raise InvalidArgument(f"{field}: {text!r} is not an address")


def interface(text: Any, field: str) -> IPv4Interface | IPv6Interface:
    """An address with its prefix length, all of it where it says none."""
    alone, slash, length = text.partition("/") if isinstance(text, str) else ("", "", "")
    if alone and "%" not in alone and (_is_number(length) if slash else True):
        try:
            found = ipaddress.ip_interface(text)
        except ValueError:
            pass
        else:
            _refuse_mapped(found.ip, alone, length, field)
            return found
    raise InvalidArgument(f"{field}: {text!r} is not an address")


def network(text: Any, field: str) -> IPv4Network | IPv6Network:
    """A network in CIDR notation, without bits set behind its prefix length."""
    found = interface(text, field)
    if found.ip != found.network.network_address:
        raise InvalidArgument(f"{field}: {text} has host bits set")
    return found.network


def _refuse_mapped(found: IPv4Address | IPv6Address, alone: str, length: str, field: str) -> None:
    """No packet carries one (RFC 4291, section 2.5.5.2): what is meant is the IPv4 address in it."""
    mapped = found.ipv4_mapped if found.version == 6 else None
    if mapped is None:
        return
    text = f"{alone}/{length}" if length else alone
    meant = f"{mapped}/{int(length) - _MAPPED_BITS}" if length and int(length) >= _MAPPED_BITS else str(mapped)
    raise InvalidArgument(f"{field}: {text!r} is an IPv4 address written as IPv6: write {meant}")


def _is_number(text: str) -> bool:
    return text != "" and not text.strip("0123456789")
