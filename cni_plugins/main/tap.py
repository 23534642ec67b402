"""CNI plugin tap: a tap device in the container's network namespace, for a virtual machine that runs in it.

Options: multiQueue, owner, group, selinuxContext, bridge (of the container or of the node), mtu, mac.
"""

from __future__ import annotations

import errno

from cni_plugins.links import ownership, tap_bridge
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
from cni_plugins.links.host_veth import remove_stale_veths
from cni_plugins.links.labelled_tap import add_labelled_tap, check_label
from cni_plugins.options import link_options
from runtime_core.errors import FailedPrecondition, NotFound
from runtime_core.network.kernel_errors import describe_error
from runtime_core.network.link_messages import alias_message, mac_bytes
from runtime_core.network.namespace import in_namespace
from runtime_core.network.tap import add_tap, check_device

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime_core.cni.request import Request
    from runtime_core.network.links import Link

_KIND = "tun"
_MOST_ID = (1 << 32) - 2
_SYSCTLS = (("ipv4", "arp_notify", "1"),)


class Options:
    """The configuration, checked."""

    __slots__ = ("bridge", "group", "label", "mac", "mtu", "multi_queue", "owner")

    def __init__(self, request: Request) -> None:
        self.multi_queue: bool = request.option("multiQueue", bool, False)
        self.owner = link_options.number(request.config, "owner", "owner", 0, _MOST_ID)
        self.group = link_options.number(request.config, "group", "group", 0, _MOST_ID)
        self.label: str = request.option("selinuxContext", str, "")
        self.bridge: str = request.option("bridge", str, "")
        if self.bridge:
            link_options.interface_name(self.bridge, "bridge")
        self.mtu, self.mac = link_options.mtu(request), link_options.mac(request)


def add(request: Request) -> dict[str, Any]:
    chosen = Options(request)
    with AttachmentSetup(request) as setup:
        master = _find_master(request, chosen, setup) if chosen.bridge else 0
        link = _create_link(request, chosen, setup, master)
        host_link = setup.host.find(ownership.host_interface_name(request)) if chosen.bridge else None
        interfaces = [
            *([describe_interface(host_link)] if host_link is not None else []),
            describe_interface(link, request.netns),
        ]
        result = add_result(request, interfaces, allocate_addresses(request, setup.undo))
        configure(setup, link, result, _SYSCTLS)
    return result


def delete(request: Request) -> None:
    """Undo ADD. Idempotent; anything may be missing, also the namespace."""
    steps = [lambda: delegate_ipam(request, "DEL"), lambda: remove_container_link(request, _KIND)]
    if request.config.get("bridge"):
        steps.append(lambda: tap_bridge.disconnect_bridge(request))
    run_all(*steps)


def check(request: Request) -> None:
    chosen = Options(request)
    previous = check_addresses(request)

    def check_link(link: Link) -> None:
        if chosen.bridge and not link.master:
            raise FailedPrecondition(f"bridge: {link.name} of the container is no port of a bridge")

    check_container(request, previous, _KIND, check_link)
    if any(interface.get("name") == ownership.host_interface_name(request) for interface in previous["interfaces"]):
        tap_bridge.check_bridge(request, chosen.bridge)


def gc(request: Request) -> None:
    """Addresses, and pairs that lead to a bridge of the node; the other links go with their namespaces."""
    run_all(lambda: delegate_ipam(request, "GC"), lambda: remove_stale_veths(request))


def status(request: Request) -> None:
    chosen = Options(request)
    check_device()
    if chosen.label:
        check_label()
    delegate_ipam(request, "STATUS")


def _create_link(request: Request, chosen: Options, setup: AttachmentSetup, master: int) -> Link:
    name = request.interface
    try:
        with in_namespace(setup.namespace):
            if chosen.label:
                add_labelled_tap(name, chosen.label, multi_queue=chosen.multi_queue, owner=chosen.owner, group=chosen.group)
            else:
                add_tap(name, multi_queue=chosen.multi_queue, owner=chosen.owner, group=chosen.group)
        setup.undo.callback(setup.container.remove, name)
        link = setup.container.create(name, alias_message(ownership.link_alias(request), name=name))
        if chosen.mtu or chosen.mac:
            setup.container.set_mtu_and_mac(link.index, chosen.mtu, mac_bytes(chosen.mac) if chosen.mac else b"")
        if master:
            setup.container.set_master(link.index, master)
        return setup.container.create(name)
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.ENXIO):
            raise NotFound(f"type: this kernel has no tap devices: {error}") from error
        raise describe_error(error, f"making tap {name}") from error


def _find_master(request: Request, chosen: Options, setup: AttachmentSetup) -> int:
    bridge, is_inside = tap_bridge.find_bridge(chosen.bridge, setup)
    if is_inside:
        return bridge.index
    try:
        return tap_bridge.connect_bridge(request, setup, bridge, chosen.mtu)
    except OSError as error:
        raise describe_error(error, f"bridge: connecting the container to {bridge.name}") from error
