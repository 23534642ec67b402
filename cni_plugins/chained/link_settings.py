"""Settings of an interface that tuning changes and gives back: read, set and compared by rtnetlink(7). Cold."""

from __future__ import annotations

import struct

from runtime_core.kernel.netlink import Message, decode
from runtime_core.network.link_messages import mac_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cni_plugins.chained.tuning_options import Options
    from runtime_core.network.links import Link, Links

_GETLINK, _SETLINK = 18, 19
_IFLA_ADDRESS, _IFLA_MTU, _IFLA_TXQLEN = 1, 4, 13
_PROMISC, _ALLMULTI = 0x100, 0x200
_LINK = struct.Struct("=BxHiII")
#: key of a saved file → bit of the interface's flags, as its users asked for it and not as bridges need it
_FLAGS = {"promisc": _PROMISC, "allmulti": _ALLMULTI}


def requested_settings(options: Options) -> dict[str, Any]:
    """By the keys of a saved file; what is left alone is left out."""
    found: dict[str, Any] = {}
    if options.mac:
        found["mac"] = options.mac
    if options.mtu:
        found["mtu"] = options.mtu
    if options.promiscuous:
        found["promisc"] = True
    if options.all_multicast is not None:
        found["allmulti"] = options.all_multicast
    if options.queue_length is not None:
        found["txQLen"] = options.queue_length
    return found


def read_settings(links: Links, link: Link) -> dict[str, Any]:
    """As the interface is now."""
    payload = links.send(Message(_GETLINK, _LINK.pack(0, 0, link.index, 0, 0)))[0]
    flags, attributes = _LINK.unpack_from(payload)[3], decode(payload[_LINK.size :])
    (queue,) = struct.unpack("=I", attributes[_IFLA_TXQLEN])
    return {
        "mac": link.mac, "mtu": link.mtu, "txQLen": queue, **{key: bool(flags & bit) for key, bit in _FLAGS.items()}
    }  # fmt: skip


def setting_message(index: int, key: str, value: Any) -> Message:
    """The netlink message that sets one setting, by its key in a saved file."""
    if key in _FLAGS:
        return Message(_SETLINK, _LINK.pack(0, 0, index, _FLAGS[key] if value else 0, _FLAGS[key]))
    if key == "mac":
        return Message(_SETLINK, _LINK.pack(0, 0, index, 0, 0), [(_IFLA_ADDRESS, mac_bytes(value))])
    attribute = {"mtu": _IFLA_MTU, "txQLen": _IFLA_TXQLEN}[key]
    return Message(_SETLINK, _LINK.pack(0, 0, index, 0, 0), [(attribute, int(value))])
