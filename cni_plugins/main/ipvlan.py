"""CNI plugin ipvlan: an interface that shares the hardware address of a link of the host.

Options: master (in a chain the one interface of prevResult, otherwise the default route's link, where it is missing),
mode, mtu, linkInContainer. In a chain, without ipam, the addresses are those of prevResult.
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
from runtime_core.network.link_messages import IPVLAN_MODES, ipvlan_data

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime_core.cni.request import Request
    from runtime_core.network.links import Link

_KIND = "ipvlan"
_MODES = ("l2", "l3", "l3s")
_MODE = 1
_SYSCTLS = (("ipv4", "arp_notify", "1"), ("ipv6", "ndisc_notify", "1"))


def add(request: Request) -> dict[str, Any]:
    mode = link_options.choice(request, "mode", _MODES)
    master = child_link.Master(request, _chained_master(request))
    with AttachmentSetup(request) as setup:
        link = child_link.create_child_link(request, setup, master, _KIND, ipvlan_data(mode))
        result = add_result(request, [describe_interface(link, request.netns)], _addresses(request, setup))
        configure(setup, link, result, _SYSCTLS)
    return result


def delete(request: Request) -> None:
    """Undo ADD. Idempotent; anything may be missing, also the namespace and the master."""
    run_all(lambda: delegate_ipam(request, "DEL"), lambda: remove_container_link(request, _KIND))


def check(request: Request) -> None:
    mode = link_options.choice(request, "mode", _MODES)
    previous = check_addresses(request)

    def check_link(link: Link) -> None:
        if struct.unpack("=H", link.data[_MODE])[0] != IPVLAN_MODES[mode]:
            raise FailedPrecondition(f"mode: {link.name} of the container is not in mode {mode}")
        if request.config.get("master"):  # otherwise prevResult does not tell which it was any more
            child_link.check_parent(request, child_link.Master(request), link)

    check_container(request, previous, _KIND, check_link)


def gc(request: Request) -> None:
    """Addresses: the links go with their namespaces."""
    delegate_ipam(request, "GC")


def status(request: Request) -> None:
    link_options.choice(request, "mode", _MODES)
    master = child_link.Master(request)
    if master.name:  # a chain may name another
        child_link.check_master(master)
    delegate_ipam(request, "STATUS")


def _chained_master(request: Request) -> str:
    if request.previous is None or request.config.get("master"):
        return ""
    names = [interface.get("name") for interface in request.previous["interfaces"]]
    if len(names) != 1 or not names[0]:
        raise InvalidArgument("master: it is missing, and prevResult does not have exactly one interface with a name")
    return str(names[0])


def _addresses(request: Request, setup: AttachmentSetup) -> dict[str, Any]:
    previous = request.previous
    if previous is not None and previous["ips"] and not request.section("ipam"):
        return previous
    return allocate_addresses(request, setup.undo, is_needed=True)
