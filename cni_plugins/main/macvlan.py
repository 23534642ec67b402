"""CNI plugin macvlan: an interface with a hardware address of its own on a link of the host.

Options: master (the default route's link where it is missing), mode, mtu, mac, linkInContainer, bcqueuelen.
"""

from __future__ import annotations

import struct

from cni_plugins.main import child_link, options
from cni_plugins.main.container_check import check_addresses, check_container
from cni_plugins.main.container_link import (
    Ends,
    allot,
    configure,
    delegate,
    described,
    each,
    remove_inside,
    result,
)
from runtime_core.errors import FailedPrecondition
from runtime_core.network.link_messages import MACVLAN_MODES, macvlan_data

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime_core.cni.request import Request
    from runtime_core.network.links import Link

_KIND = "macvlan"
_MODES = ("bridge", "private", "vepa", "passthru")
_MODE = 1
_MOST_QUEUE = (1 << 32) - 1
_SETTINGS = (("ipv4", "arp_notify", "1"), ("ipv6", "ndisc_notify", "1"))


class Options:
    """The configuration, checked."""

    __slots__ = ("broadcast_queue", "mac", "master", "mode")

    def __init__(self, request: Request) -> None:
        self.master = child_link.Master(request)
        self.mode = options.choice(request, "mode", _MODES)
        self.mac = options.mac(request)
        self.broadcast_queue = options.number(request.config, "bcqueuelen", "bcqueuelen", 0, _MOST_QUEUE) or 0


def add(request: Request) -> dict[str, Any]:
    chosen = Options(request)
    with Ends(request) as ends:
        data = macvlan_data(chosen.mode, chosen.broadcast_queue)
        link = child_link.make(request, ends, chosen.master, _KIND, data, chosen.mac)
        found = result(request, [described(link, request.netns)], allot(request, ends.undo))
        configure(ends, link, found, _SETTINGS)
    return found


def delete(request: Request) -> None:
    """Idempotent with anything missing, also the namespace and the master."""
    each(lambda: delegate(request, "DEL"), lambda: remove_inside(request, _KIND))


def check(request: Request) -> None:
    chosen = Options(request)
    previous = check_addresses(request)

    def look(link: Link) -> None:
        mode = struct.unpack("=I", link.data[_MODE])[0]
        if mode != MACVLAN_MODES[chosen.mode]:
            raise FailedPrecondition(f"mode: {link.name} of the container is not in mode {chosen.mode}")
        child_link.check(request, chosen.master, link)

    check_container(request, previous, _KIND, look)


def gc(request: Request) -> None:
    """Addresses: the links go with their namespaces."""
    delegate(request, "GC")


def status(request: Request) -> None:
    child_link.status(Options(request).master)
    delegate(request, "STATUS")
