"""CNI plugin vlan: an interface for one 802.1Q VLAN of a link of the host.

Options: master, vlanId, mtu, linkInContainer.
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
from runtime_core.network.link_messages import vlan_data

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime_core.cni.request import Request
    from runtime_core.network.links import Link

_KIND = "vlan"
_ID = 1


class Options:
    """The configuration, checked."""

    __slots__ = ("id", "master")

    def __init__(self, request: Request) -> None:
        self.master = child_link.Master(request)
        if not self.master.name:
            raise InvalidArgument("master: it is missing: a VLAN is one of a link that is named")
        self.id = options.vlan(request.config, "vlanId", "vlanId", first=0) or 0


def add(request: Request) -> dict[str, Any]:
    chosen = Options(request)
    with Ends(request) as ends:
        link = child_link.make(request, ends, chosen.master, _KIND, vlan_data(chosen.id))
        found = result(request, [described(link, request.netns)], allot(request, ends.undo))
        configure(ends, link, found)
    return found


def delete(request: Request) -> None:
    """Idempotent with anything missing, also the namespace and the master."""
    each(lambda: delegate(request, "DEL"), lambda: remove_inside(request, _KIND))


def check(request: Request) -> None:
    chosen = Options(request)
    previous = check_addresses(request)

    def look(link: Link) -> None:
        present = struct.unpack("=H", link.data[_ID])[0]
        if present != chosen.id:
            raise FailedPrecondition(f"vlanId: {link.name} of the container is of VLAN {present}, not {chosen.id}")
        child_link.check(request, chosen.master, link)

    check_container(request, previous, _KIND, look)


def gc(request: Request) -> None:
    """Addresses: the links go with their namespaces."""
    delegate(request, "GC")


def status(request: Request) -> None:
    child_link.status(Options(request).master)
    delegate(request, "STATUS")
