"""Addresses as keys of the store: IP version, then the address, as bytes in order. Cold."""

from __future__ import annotations

import ipaddress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address


#: of IPv4 and IPv6
KEY_BYTES = (5, 17)


def address_to_key(address: IPv4Address | IPv6Address) -> bytes:
    """Version and address, so that keys sort as addresses do."""
    return bytes((address.version,)) + address.packed


def key_to_text(key: bytes) -> str:
    """The address as people write it."""
    return str(ipaddress.ip_address(key[1:]))


def next_key(key: bytes) -> bytes:
    return (int.from_bytes(key, "big") + 1).to_bytes(len(key), "big")


def previous_key(key: bytes) -> bytes:
    return (int.from_bytes(key, "big") - 1).to_bytes(len(key), "big")
