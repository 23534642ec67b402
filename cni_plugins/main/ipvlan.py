"""CNI plugin ipvlan: an interface that shares the hardware address of a link of the host.

Options: master (in a chain the one interface of prevResult, otherwise the default route's link, where it is missing),
mode, mtu, linkInContainer. In a chain, without ipam, the addresses are those of prevResult.
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
from runtime_core.errors import FailedPrecondition, InvalidArgument
from runtime_core.network.link_messages import IPVLAN_MODES, ipvlan_data

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime_core.cni.request import Request
    from runtime_core.network.links import Link

_KIND = "ipvlan"
_MODES = ("l2", "l3", "l3s")
_MODE = 1
_SETTINGS = (("ipv4", "arp_notify", "1"), ("ipv6", "ndisc_notify", "1"))


def add(request: Request) -> dict[str, Any]:
    mode = options.choice(request, "mode", _MODES)
    master = child_link.Master(request, _chained_master(request))
    with Ends(request) as ends:
        link = child_link.make(request, ends, master, _KIND, ipvlan_data(mode))
        found = result(request, [described(link, request.netns)], _addresses(request, ends))
        configure(ends, link, found, _SETTINGS)
    return found


def delete(request: Request) -> None:
    """Idempotent with anything missing, also the namespace and the master."""
    each(lambda: delegate(request, "DEL"), lambda: remove_inside(request, _KIND))


def check(request: Request) -> None:
    mode = options.choice(request, "mode", _MODES)
    previous = check_addresses(request)

    def look(link: Link) -> None:
        if struct.unpack("=H", link.data[_MODE])[0] != IPVLAN_MODES[mode]:
            raise FailedPrecondition(f"mode: {link.name} of the container is not in mode {mode}")
        if request.config.get("master"):  # otherwise prevResult does not tell which it was any more
            child_link.check(request, child_link.Master(request), link)

    check_container(request, previous, _KIND, look)


def gc(request: Request) -> None:
    """Addresses: the links go with their namespaces."""
    delegate(request, "GC")


def status(request: Request) -> None:
    options.choice(request, "mode", _MODES)
    master = child_link.Master(request)
    if master.name:  # a chain may name another
        child_link.status(master)
    delegate(request, "STATUS")


def _chained_master(request: Request) -> str:
    if request.previous is None or request.config.get("master"):
        return ""
    names = [one.get("name") for one in request.previous["interfaces"]]
    if len(names) != 1 or not names[0]:
        raise InvalidArgument("master: it is missing, and prevResult does not have exactly one interface with a name")
    return str(names[0])


def _addresses(request: Request, ends: Ends) -> dict[str, Any]:
    previous = request.previous
    if previous is not None and previous["ips"] and not request.section("ipam"):
        return previous
    return allot(request, ends.undo, is_needed=True)
