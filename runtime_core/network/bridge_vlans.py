"""VLANs of a bridge's ports (ip-link(8), vlan_filtering): who is in which, tagged or not. Cold."""

from __future__ import annotations

import socket
import struct

from runtime_core.kernel import netlink
from runtime_core.kernel.netlink import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_DELLINK, _GETLINK, _SETLINK = 17, 18, 19
_IFLA_AF_SPEC, _IFLA_EXT_MASK, _VLAN_INFO, _EXT_FILTER_VLAN = 26, 29, 2, 2
_PVID, _UNTAGGED, _RANGE_BEGIN, _RANGE_END = 2, 4, 8, 16
_LINK = struct.Struct("=BxHiII")
_INFO = struct.Struct("=HH")


def native_vlan_message(port: int, vlan: int) -> Message:
    """What comes without a tag is of `vlan`, and what is of it leaves without one."""
    return _message(_SETLINK, port, [(_PVID | _UNTAGGED, vlan)])


def trunk_message(port: int, vlans: Iterable[int]) -> Message:
    """The port carries `vlans`, tagged."""
    entries = []
    for first, last in ranges(vlans):
        entries += [(0, first)] if first == last else [(_RANGE_BEGIN, first), (_RANGE_END, last)]
    return _message(_SETLINK, port, entries)


def remove_vlans_message(port: int, vlans: Iterable[int]) -> Message:
    """The port leaves `vlans`."""
    return _message(_DELLINK, port, [(0, vlan) for vlan in vlans])


def vlans(sock: netlink.Socket, port: int) -> dict[int, tuple[bool, bool]]:
    """VLAN of a port → (is native, leaves untagged)."""
    header = _LINK.pack(socket.AF_BRIDGE, 0, 0, 0, 0)
    for payload in sock.dump(Message(_GETLINK, header, [(_IFLA_EXT_MASK, _EXT_FILTER_VLAN)])):
        if _LINK.unpack_from(payload)[2] == port:
            listed = netlink.decode(payload[_LINK.size :]).get(_IFLA_AF_SPEC, b"")
            return {
                vlan: (bool(flags & _PVID), bool(flags & _UNTAGGED))
                for flags, vlan in (_INFO.unpack(value) for kind, value in netlink.items(listed) if kind == _VLAN_INFO)
            }
    return {}


def ranges(vlans: Iterable[int]) -> list[tuple[int, int]]:
    """(first, last) of each run of neighbours: 4094 VLANs fit into one message."""
    found: list[tuple[int, int]] = []
    for vlan in sorted(set(vlans)):
        if found and found[-1][1] == vlan - 1:
            found[-1] = found[-1][0], vlan
        else:
            found.append((vlan, vlan))
    return found


def _message(kind: int, port: int, entries: list[tuple[int, int]]) -> Message:
    specification = [(_VLAN_INFO, _INFO.pack(flags, vlan)) for flags, vlan in entries]
    return Message(kind, _LINK.pack(socket.AF_BRIDGE, 0, port, 0, 0), [(_IFLA_AF_SPEC, specification)])
