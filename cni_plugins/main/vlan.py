"""CNI plugin vlan: an interface for one 802.1Q VLAN of a link of the host.

Options: master, vlanId, mtu, linkInContainer.
"""

from __future__ import annotations

import struct

from cni_plugins.links import child_link
from cni_plugins.links.container_check import check_addresses, check_container
from cni_plugins.links.container_link import (
    AttachmentSetup,
    add_result,
    allocate_addresses,
    configure,
    delegate_ipam,
    describe_interface,
    remove_container_link,
    run_all,
)
from cni_plugins.options import link_options
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
        self.id = link_options.vlan(request.config, "vlanId", "vlanId", first=0) or 0


def add(request: Request) -> dict[str, Any]:
    chosen = Options(request)
    with AttachmentSetup(request) as setup:
        link = child_link.create_child_link(request, setup, chosen.master, _KIND, vlan_data(chosen.id))
        result = add_result(request, [describe_interface(link, request.netns)], allocate_addresses(request, setup.undo))
        configure(setup, link, result)
    return result


def delete(request: Request) -> None:
    """Undo ADD. Idempotent; anything may be missing, also the namespace and the master."""
    run_all(lambda: delegate_ipam(request, "DEL"), lambda: remove_container_link(request, _KIND))


def check(request: Request) -> None:
    chosen = Options(request)
    previous = check_addresses(request)

    def check_link(link: Link) -> None:
        present = struct.unpack("=H", link.data[_ID])[0]
        if present != chosen.id:
            raise FailedPrecondition(f"vlanId: {link.name} of the container is of VLAN {present}, not {chosen.id}")
        child_link.check_parent(request, chosen.master, link)

    check_container(request, previous, _KIND, check_link)


def gc(request: Request) -> None:
    """Addresses: the links go with their namespaces."""
    delegate_ipam(request, "GC")


def status(request: Request) -> None:
    child_link.check_master(Options(request).master)
    delegate_ipam(request, "STATUS")
