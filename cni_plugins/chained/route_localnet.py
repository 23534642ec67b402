"""Sets route_localnet, so that a port map works for 127.0.0.1:port of the node. Cold."""

from __future__ import annotations

import ipaddress
import socket
import struct

from runtime_core.errors import NotFound
from runtime_core.kernel import netlink
from runtime_core.kernel.netlink import Message
from runtime_core.network.sysctl import write_sysctl

_GETROUTE = 26
_RTA_DST, _RTA_OIF = 1, 4


def enable_route_localnet(addresses: list[str]) -> None:
    """On the interface of the node by which each IPv4 one of `addresses` is reached; IPv6 has no such thing."""
    for interface in map(ipaddress.ip_interface, addresses):
        name = _interface_towards(interface.ip.packed) if interface.version == 4 else ""
        if name and not write_sysctl(f"ipv4/conf/{name}/route_localnet", "1"):
            raise NotFound(f"{name}, by which {interface.ip} was reached, is gone")


def _interface_towards(address: bytes) -> str:
    """ "" when there is no way there."""
    header = struct.pack("=BBBBBBBBI", socket.AF_INET, 32, *[0] * 7)
    try:
        with netlink.Socket() as sock:
            payloads = sock.request(Message(_GETROUTE, header, [(_RTA_DST, address)]))
        return socket.if_indextoname(struct.unpack("=I", netlink.decode(payloads[0][12:])[_RTA_OIF])[0])
    except (OSError, KeyError):
        return ""
