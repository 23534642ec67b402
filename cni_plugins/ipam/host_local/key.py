"""An address as the store orders it: IP version, then the address, as bytes. Cold."""

from __future__ import annotations

import ipaddress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address


#: of IPv4 and IPv6
KEY_BYTES = (5, 17)


def key_of(address: IPv4Address | IPv6Address) -> bytes:
    return bytes((address.version,)) + address.packed


def text_of(key: bytes) -> str:
    return str(ipaddress.ip_address(key[1:]))


def following(key: bytes) -> bytes:
    return (int.from_bytes(key, "big") + 1).to_bytes(len(key), "big")


def preceding(key: bytes) -> bytes:
    return (int.from_bytes(key, "big") - 1).to_bytes(len(key), "big")
