"""A tap of the container on a bridge. Cold.

A device can only be a port of a bridge in its own namespace. Where the bridge is the node's, a veth pair leads from it into
the container, where a second bridge, without addresses, joins it to the tap.
"""

from __future__ import annotations

import hashlib

from cni_plugins.main import ownership
from cni_plugins.main.container_link import Ends, where_there_is_a_container
from runtime_core.errors import FailedPrecondition, NotFound
from runtime_core.kernel import netlink
from runtime_core.network.link_messages import alias_message, bridge_message, veth_message
from runtime_core.network.links import Links
from runtime_core.network.namespace import entered
from runtime_core.network.sysctl import refuse_router_advertisements, write_sysctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime_core.cni.request import Request
    from runtime_core.network.links import Link


def find(name: str, ends: Ends) -> tuple[Link, bool]:
    """(the bridge, whether it is in the container); the container's own goes first."""
    for links, is_inside in ((ends.inside, True), (ends.host, False)):
        found = links.find(name)
        if found is not None:
            if found.kind != "bridge":
                where = "of the container" if is_inside else "of the node"
                raise FailedPrecondition(f"bridge: {name} {where} is a {found.kind or 'real device'}, not a bridge")
            return found, is_inside
    raise NotFound(f"bridge: {name!r} is neither in the container nor on the node")


def connect(request: Request, ends: Ends, bridge: Link, mtu: int) -> int:
    """From the node's `bridge` into the container; the index of the bridge there."""
    near, far, inner = ownership.host_name(request), *_inner_names(request)
    alias = ownership.alias(request)
    ends.host.remove(near)  # what an ADD that was killed left behind
    ends.inside.remove(inner)
    ends.undo.callback(ends.host.remove, near)
    pair = veth_message(near, far, namespace=ends.namespace, master=bridge.index, mtu=mtu)
    ends.host.make(near, pair, alias_message(alias, name=near))
    for link in (near, bridge.name):
        refuse_router_advertisements(link)
    ends.undo.callback(ends.inside.remove, inner)
    made = ends.inside.make(inner, bridge_message(inner, mtu=mtu), alias_message(alias, name=inner))
    with entered(ends.namespace):
        for name in (far, inner):
            write_sysctl(f"ipv6/conf/{name}/disable_ipv6", "1")  # it carries the machine's frames and has none of its own
    port = ends.inside.make(far)
    ends.inside.set_master(port.index, made.index)
    ends.inside.set_up(port.index)
    return made.index


def disconnect(request: Request) -> None:
    """Idempotent with anything missing."""
    with netlink.Socket() as sock:
        Links(sock).remove(ownership.host_name(request))
    where_there_is_a_container(request, lambda links: links.remove(_inner_names(request)[1]))


def check(request: Request, bridge: str) -> None:
    """That the pair still leads to the node's `bridge`, where it was made."""
    with netlink.Socket() as sock:
        links = Links(sock)
        near, master = links.find(ownership.host_name(request)), links.find(bridge)
    if near is None or master is None or near.master != master.index or not near.is_up:
        raise FailedPrecondition(f"bridge: the container's tap is not connected to {bridge} any more")


def _inner_names(request: Request) -> tuple[str, str]:
    digest = hashlib.sha256(request.owner.encode()).hexdigest()[:11]
    return f"tapp{digest}", f"tapb{digest}"
