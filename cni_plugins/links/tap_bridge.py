"""A tap of the container on a bridge. Cold.

A device can only be a port of a bridge in its own namespace. Where the bridge is the node's, a veth pair leads from it into
the container, where a second bridge, without addresses, joins it to the tap.
"""

from __future__ import annotations

import hashlib

from cni_plugins.links import ownership
from cni_plugins.links.container_link import AttachmentSetup, run_in_container
from runtime_core.errors import FailedPrecondition, NotFound
from runtime_core.kernel import netlink
from runtime_core.network.link_messages import alias_message, bridge_message, veth_message
from runtime_core.network.links import Links
from runtime_core.network.namespace import in_namespace
from runtime_core.network.sysctl import refuse_router_advertisements, write_sysctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime_core.cni.request import Request
    from runtime_core.network.links import Link


def find_bridge(name: str, setup: AttachmentSetup) -> tuple[Link, bool]:
    """(the bridge, whether it is in the container); the container's own goes first."""
    for links, is_inside in ((setup.container, True), (setup.host, False)):
        found = links.find(name)
        if found is not None:
            if found.kind != "bridge":
                where = "of the container" if is_inside else "of the node"
                raise FailedPrecondition(f"bridge: {name} {where} is a {found.kind or 'real device'}, not a bridge")
            return found, is_inside
    raise NotFound(f"bridge: {name!r} is neither in the container nor on the node")


def connect_bridge(request: Request, setup: AttachmentSetup, bridge: Link, mtu: int) -> int:
    """From the node's `bridge` into the container; the index of the bridge there."""
    host_link, container_link, inner = ownership.host_interface_name(request), *_inner_names(request)
    alias = ownership.link_alias(request)
    setup.host.remove(host_link)  # what an ADD that was killed left behind
    setup.container.remove(inner)
    setup.undo.callback(setup.host.remove, host_link)
    pair = veth_message(host_link, container_link, namespace=setup.namespace, master=bridge.index, mtu=mtu)
    setup.host.create(host_link, pair, alias_message(alias, name=host_link))
    for link in (host_link, bridge.name):
        refuse_router_advertisements(link)
    setup.undo.callback(setup.container.remove, inner)
    made = setup.container.create(inner, bridge_message(inner, mtu=mtu), alias_message(alias, name=inner))
    with in_namespace(setup.namespace):
        for name in (container_link, inner):
            write_sysctl(f"ipv6/conf/{name}/disable_ipv6", "1")  # it carries the machine's frames and has none of its own
    port = setup.container.create(container_link)
    setup.container.set_master(port.index, made.index)
    setup.container.set_up(port.index)
    return made.index


def disconnect_bridge(request: Request) -> None:
    """Idempotent with anything missing."""
    with netlink.Socket() as sock:
        Links(sock).remove(ownership.host_interface_name(request))
    run_in_container(request, lambda links: links.remove(_inner_names(request)[1]))


def check_bridge(request: Request, bridge: str) -> None:
    """That the pair still leads to the node's `bridge`, where it was made."""
    with netlink.Socket() as sock:
        links = Links(sock)
        host_link, master = links.find(ownership.host_interface_name(request)), links.find(bridge)
    if host_link is None or master is None or host_link.master != master.index or not host_link.is_up:
        raise FailedPrecondition(f"bridge: the container's tap is not connected to {bridge} any more")


def _inner_names(request: Request) -> tuple[str, str]:
    digest = hashlib.sha256(request.owner.encode()).hexdigest()[:11]
    return f"tapp{digest}", f"tapb{digest}"
