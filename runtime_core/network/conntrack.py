"""Flows that the kernel remembers are forgotten, by ctnetlink (linux/netfilter/nfnetlink_conntrack.h). Cold.

A datagram's sender keeps its flow alive, and with it the way that the first datagram went: to nobody, before a port
was mapped, or to a pod that is gone. TCP and SCTP begin anew by themselves.
"""

from __future__ import annotations

import errno
import ipaddress
import struct

from runtime_core.kernel import netlink
from runtime_core.kernel.netlink import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SUBSYSTEM = 1 << 8
_GET, _DELETE = 1, 2
_ORIGINAL, _REPLY, _FILTER = 1, 2, 25
_ORIGINAL_FLAGS, _REPLY_FLAGS = 1, 2
_IP, _PROTOCOL = 1, 2
_SOURCE = {4: 1, 6: 3}
_DESTINATION = {4: 2, 6: 4}
_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3
_IS_SOURCE, _IS_DESTINATION, _IS_NUMBER, _IS_SOURCE_PORT, _IS_DESTINATION_PORT = 1 << 0, 1 << 1, 1 << 3, 1 << 4, 1 << 5
_UDP = 17
#: in the header, without which DELETE takes the flows of every family
_HEEDS_FAMILY = 1
_FAMILIES = {4: 2, 6: 10}


def forget_to_port(sock: netlink.Socket, version: int, port: int, address: str = "") -> None:
    """UDP flows of IP `version` that were begun to `port`, of whatever address or of this one."""
    numbers = [(_NUMBER, bytes([_UDP])), (_DESTINATION_PORT, struct.pack("!H", port))]
    flags, wanted = _IS_NUMBER | _IS_DESTINATION_PORT, [(_PROTOCOL, numbers)]
    if address:
        flags |= _IS_DESTINATION
        wanted.insert(0, (_IP, [(_DESTINATION[version], ipaddress.ip_address(address).packed)]))
    _forget(sock, version, _ORIGINAL, wanted, flags)


def forget_from(sock: netlink.Socket, address: str, port: int) -> None:
    """UDP flows that `port` of `address` answers, whatever port they were begun to."""
    ip = ipaddress.ip_address(address)
    numbers = [(_NUMBER, bytes([_UDP])), (_SOURCE_PORT, struct.pack("!H", port))]
    wanted = [(_IP, [(_SOURCE[ip.version], ip.packed)]), (_PROTOCOL, numbers)]
    _forget(sock, ip.version, _REPLY, wanted, _IS_SOURCE | _IS_NUMBER | _IS_SOURCE_PORT)


def _forget(sock: netlink.Socket, version: int, side: int, wanted: list[Any], flags: int) -> None:
    try:
        sock.request(_message(_DELETE, version, _filter(side, wanted, flags)))
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
        forget_one_by_one(sock, version, side, wanted, flags)


def forget_one_by_one(sock: netlink.Socket, version: int, side: int, wanted: list[Any], flags: int) -> None:
    """On a kernel before 6.5, whose DELETE takes a flow and no filter; one before 5.8 lists them unfiltered, too."""
    for payload in sock.dump(_message(_GET, version, _filter(side, wanted, flags))):
        attributes = netlink.decode(payload[4:])
        if _fits(netlink.decode(attributes[side]), wanted):
            try:
                sock.request(_message(_DELETE, version, [(_ORIGINAL | 0x8000, attributes[_ORIGINAL])]))
            except FileNotFoundError:
                continue  # it ended by itself


def _filter(side: int, wanted: list[Any], flags: int) -> list[Any]:
    return [(side, wanted), (_FILTER, [(_ORIGINAL_FLAGS if side == _ORIGINAL else _REPLY_FLAGS, flags)])]


def _fits(flow: dict[int, bytes], wanted: list[Any]) -> bool:
    return all(netlink.decode(flow.get(kind, b"")).get(field) == value for kind, fields in wanted for field, value in fields)


def _message(kind: int, version: int, attributes: list[Any]) -> Message:
    return Message(_SUBSYSTEM | kind, struct.pack("!BBH", _FAMILIES[version], _HEEDS_FAMILY, 0), attributes)
