"""CNI plugin macvlan: an interface with a hardware address of its own on a link of the host.

Options: master (the default route's link where it is missing), mode, mtu, mac, linkInContainer, bcqueuelen.
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
_SYSCTLS = (("ipv4", "arp_notify", "1"), ("ipv6", "ndisc_notify", "1"))


class Options:
    """The configuration, checked."""

    __slots__ = ("broadcast_queue", "mac", "master", "mode")

    def __init__(self, request: Request) -> None:
        self.master = child_link.Master(request)
        self.mode = link_options.choice(request, "mode", _MODES)
        self.mac = link_options.mac(request)
        self.broadcast_queue = link_options.number(request.config, "bcqueuelen", "bcqueuelen", 0, _MOST_QUEUE) or 0


def add(request: Request) -> dict[str, Any]:
    chosen = Options(request)
    with AttachmentSetup(request) as setup:
        data = macvlan_data(chosen.mode, chosen.broadcast_queue)
        link = child_link.create_child_link(request, setup, chosen.master, _KIND, data, chosen.mac)
        result = add_result(request, [describe_interface(link, request.netns)], allocate_addresses(request, setup.undo))
        configure(setup, link, result, _SYSCTLS)
    return result


def delete(request: Request) -> None:
    """Undo ADD. Idempotent; anything may be missing, also the namespace and the master."""
    run_all(lambda: delegate_ipam(request, "DEL"), lambda: remove_container_link(request, _KIND))


def check(request: Request) -> None:
    chosen = Options(request)
    previous = check_addresses(request)

    def check_link(link: Link) -> None:
        mode = struct.unpack("=I", link.data[_MODE])[0]
        if mode != MACVLAN_MODES[chosen.mode]:
            raise FailedPrecondition(f"mode: {link.name} of the container is not in mode {chosen.mode}")
        child_link.check_parent(request, chosen.master, link)

    check_container(request, previous, _KIND, check_link)


def gc(request: Request) -> None:
    """Addresses: the links go with their namespaces."""
    delegate_ipam(request, "GC")


def status(request: Request) -> None:
    child_link.check_master(Options(request).master)
    delegate_ipam(request, "STATUS")
