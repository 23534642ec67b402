"""A DHCP message in IPv4 and UDP, as a packet socket sends and receives it; pure. Cold."""

from __future__ import annotations

import struct

SERVER_PORT, CLIENT_PORT = 67, 68
_IP = struct.Struct("!BBHHHBBH4s4s")
_UDP = struct.Struct("!HHHH")
_UDP_PROTOCOL = 17
_MORE_OR_OFFSET = 0x3FFF


def wrap(payload: bytes, source: bytes, destination: bytes) -> bytes:
    """From the client's port to the server's."""
    size = _UDP.size + len(payload)
    pseudo = source + destination + struct.pack("!BBH", 0, _UDP_PROTOCOL, size)
    bare = _UDP.pack(CLIENT_PORT, SERVER_PORT, size, 0) + payload
    udp = _UDP.pack(CLIENT_PORT, SERVER_PORT, size, _checksum(pseudo + bare) or 0xFFFF) + payload
    head = _IP.pack(0x45, 0x10, _IP.size + size, 0, 0, 64, _UDP_PROTOCOL, 0, source, destination)
    return head[:10] + _checksum(head).to_bytes(2, "big") + head[12:] + udp


def unwrap(packet: bytes, *, is_checked: bool) -> bytes | None:
    """The payload of what a server sent; None for anything else.

    `is_checked`: the UDP checksum is to be right. On one host it often is not there yet: the sender left it to a device."""
    if len(packet) < _IP.size:
        return None
    version, _tos, total, _id, fragment, _ttl, protocol, _sum, source, destination = _IP.unpack_from(packet)
    head = (version & 15) * 4
    if version >> 4 != 4 or head < _IP.size or protocol != _UDP_PROTOCOL or fragment & _MORE_OR_OFFSET:
        return None
    if total > len(packet) or total < head + _UDP.size or _checksum(packet[:head]) != 0:
        return None
    _from, to, size, checksum = _UDP.unpack_from(packet, head)
    if to != CLIENT_PORT or size < _UDP.size or head + size > total:
        return None
    udp = packet[head : head + size]
    pseudo = source + destination + struct.pack("!BBH", 0, _UDP_PROTOCOL, size)
    if is_checked and checksum and _checksum(pseudo + udp) != 0:
        return None
    return udp[_UDP.size :]


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
