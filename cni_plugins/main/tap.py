"""CNI plugin tap: a tap device in the container's network namespace, for a virtual machine that runs in it.

Options: multiQueue, owner, group, selinuxContext, bridge (of the container or of the node), mtu, mac.
"""

from __future__ import annotations

import errno

from cni_plugins.main import options, ownership, tap_bridge
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
from cni_plugins.main.host_veth import remove_stale
from cni_plugins.main.labelled_tap import add_labelled_tap, check_label
from runtime_core.errors import FailedPrecondition, NotFound
from runtime_core.network.link_messages import alias_message, mac_bytes
from runtime_core.network.namespace import entered
from runtime_core.network.refusals import refused
from runtime_core.network.tap import add_tap, check_device

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime_core.cni.request import Request
    from runtime_core.network.links import Link

_KIND = "tun"
_MOST_ID = (1 << 32) - 2
_SETTINGS = (("ipv4", "arp_notify", "1"),)


class Options:
    """The configuration, checked."""

    __slots__ = ("bridge", "group", "label", "mac", "mtu", "multi_queue", "owner")

    def __init__(self, request: Request) -> None:
        self.multi_queue: bool = request.option("multiQueue", bool, False)
        self.owner = options.number(request.config, "owner", "owner", 0, _MOST_ID)
        self.group = options.number(request.config, "group", "group", 0, _MOST_ID)
        self.label: str = request.option("selinuxContext", str, "")
        self.bridge: str = request.option("bridge", str, "")
        if self.bridge:
            options.interface_name(self.bridge, "bridge")
        self.mtu, self.mac = options.mtu(request), options.mac(request)


def add(request: Request) -> dict[str, Any]:
    chosen = Options(request)
    with Ends(request) as ends:
        master = _master(request, chosen, ends) if chosen.bridge else 0
        link = _make(request, chosen, ends, master)
        near = ends.host.find(ownership.host_name(request)) if chosen.bridge else None
        interfaces = [*([described(near)] if near is not None else []), described(link, request.netns)]
        found = result(request, interfaces, allot(request, ends.undo))
        configure(ends, link, found, _SETTINGS)
    return found


def delete(request: Request) -> None:
    """Idempotent with anything missing, also the namespace."""
    steps = [lambda: delegate(request, "DEL"), lambda: remove_inside(request, _KIND)]
    if request.config.get("bridge"):
        steps.append(lambda: tap_bridge.disconnect(request))
    each(*steps)


def check(request: Request) -> None:
    chosen = Options(request)
    previous = check_addresses(request)

    def look(link: Link) -> None:
        if chosen.bridge and not link.master:
            raise FailedPrecondition(f"bridge: {link.name} of the container is no port of a bridge")

    check_container(request, previous, _KIND, look)
    if any(one.get("name") == ownership.host_name(request) for one in previous["interfaces"]):
        tap_bridge.check(request, chosen.bridge)


def gc(request: Request) -> None:
    """Addresses, and pairs that lead to a bridge of the node; the other links go with their namespaces."""
    each(lambda: delegate(request, "GC"), lambda: remove_stale(request))


def status(request: Request) -> None:
    chosen = Options(request)
    check_device()
    if chosen.label:
        check_label()
    delegate(request, "STATUS")


def _make(request: Request, chosen: Options, ends: Ends, master: int) -> Link:
    name = request.interface
    try:
        with entered(ends.namespace):
            if chosen.label:
                add_labelled_tap(name, chosen.label, multi_queue=chosen.multi_queue, owner=chosen.owner, group=chosen.group)
            else:
                add_tap(name, multi_queue=chosen.multi_queue, owner=chosen.owner, group=chosen.group)
        ends.undo.callback(ends.inside.remove, name)
        link = ends.inside.make(name, alias_message(ownership.alias(request), name=name))
        if chosen.mtu or chosen.mac:
            ends.inside.set_size_and_mac(link.index, chosen.mtu, mac_bytes(chosen.mac) if chosen.mac else b"")
        if master:
            ends.inside.set_master(link.index, master)
        return ends.inside.make(name)
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.ENXIO):
            raise NotFound(f"type: this kernel has no tap devices: {error}") from error
        raise refused(error, f"making tap {name}") from error


def _master(request: Request, chosen: Options, ends: Ends) -> int:
    bridge, is_inside = tap_bridge.find(chosen.bridge, ends)
    if is_inside:
        return bridge.index
    try:
        return tap_bridge.connect(request, ends, bridge, chosen.mtu)
    except OSError as error:
        raise refused(error, f"bridge: connecting the container to {bridge.name}") from error
