"""A veth pair from the host into the container. Cold."""

from __future__ import annotations

from cni_plugins.main import ownership
from cni_plugins.main.container_link import remove_inside
from runtime_core.errors import FailedPrecondition
from runtime_core.kernel import netlink
from runtime_core.network.carrier import has_carrier
from runtime_core.network.link_messages import alias_message, veth_message
from runtime_core.network.links import Link, Links
from runtime_core.network.refusals import refused
from runtime_core.network.sysctl import refuse_router_advertisements, write_sysctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.main.container_link import Ends
    from runtime_core.cni.request import Request


def connect(request: Request, ends: Ends, *, master: int = 0, mtu: int = 0, mac: str = "") -> tuple[Link, Link]:
    """(the host's end, up; the container's end, still down). Both say whose they are."""
    name = ownership.host_name(request)
    ends.host.remove(name)  # what an ADD that was killed left behind
    ends.undo.callback(ends.host.remove, name)
    alias = ownership.alias(request)
    pair = veth_message(name, request.interface, namespace=ends.namespace, master=master, mtu=mtu, mac=mac)
    try:
        near = ends.host.make(name, pair, alias_message(alias, name=name))
        far = ends.inside.make(request.interface, alias_message(alias, name=request.interface))
    except OSError as error:
        raise refused(error, f"making veth {name} with mtu {mtu or 'as usual'}") from error
    refuse_router_advertisements(name)
    if not master:  # nobody else is on it, and before its own address is ready the node asks for no neighbour
        write_sysctl(f"ipv6/conf/{name}/accept_dad", "0")
    return near, far


def check_carrier(near: Link) -> None:
    """With the container's end up, the host's has a carrier, and from this moment it sends."""
    if not has_carrier(near.name):
        raise FailedPrecondition(f"veth {near.name} has no carrier although the container's end is up")


def remove(request: Request) -> None:
    """Both ends; idempotent. A pair that another plugin of this type made is found by the container's end."""
    with netlink.Socket() as sock:
        was_there = Links(sock).remove(ownership.host_name(request))
    if not was_there:
        remove_inside(request, "veth")


def remove_stale(request: Request) -> None:
    """Of this network's attachments that are not in cni.dev/valid-attachments."""
    with netlink.Socket() as sock:
        ownership.remove_stale(Links(sock), request)
