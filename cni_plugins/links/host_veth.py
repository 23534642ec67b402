"""A veth pair from the host into the container. Cold."""

from __future__ import annotations

from cni_plugins.links import ownership
from cni_plugins.links.container_link import remove_container_link
from runtime_core.errors import FailedPrecondition
from runtime_core.kernel import netlink
from runtime_core.network.carrier import has_carrier
from runtime_core.network.kernel_errors import describe_error
from runtime_core.network.link_messages import alias_message, veth_message
from runtime_core.network.links import Link, Links
from runtime_core.network.sysctl import refuse_router_advertisements, write_sysctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.links.container_link import AttachmentSetup
    from runtime_core.cni.request import Request


def create_veth(request: Request, setup: AttachmentSetup, *, master: int = 0, mtu: int = 0, mac: str = "") -> tuple[Link, Link]:
    """Create the pair: (the host's end, up; the container's end, still down). Both carry the attachment's alias."""
    name = ownership.host_interface_name(request)
    setup.host.remove(name)  # what an ADD that was killed left behind
    setup.undo.callback(setup.host.remove, name)
    alias = ownership.link_alias(request)
    pair = veth_message(name, request.interface, namespace=setup.namespace, master=master, mtu=mtu, mac=mac)
    try:
        host_link = setup.host.create(name, pair, alias_message(alias, name=name))
        container_link = setup.container.create(request.interface, alias_message(alias, name=request.interface))
    except OSError as error:
        raise describe_error(error, f"making veth {name} with mtu {mtu or 'as usual'}") from error
    refuse_router_advertisements(name)
    if not master:  # nobody else is on it, and before its own address is ready the node asks for no neighbour
        write_sysctl(f"ipv6/conf/{name}/accept_dad", "0")
    return host_link, container_link


def check_carrier(host_link: Link) -> None:
    """FailedPrecondition unless the host's end has a carrier, as it has once the container's end is up."""
    if not has_carrier(host_link.name):
        raise FailedPrecondition(f"veth {host_link.name} has no carrier although the container's end is up")


def remove_veth(request: Request) -> None:
    """Remove both ends. Idempotent; a pair of the reference plugins is found by the container's end."""
    with netlink.Socket() as sock:
        was_there = Links(sock).remove(ownership.host_interface_name(request))
    if not was_there:
        remove_container_link(request, "veth")


def remove_stale_veths(request: Request) -> None:
    """Of this network's attachments that are not in cni.dev/valid-attachments."""
    with netlink.Socket() as sock:
        ownership.remove_stale_links(Links(sock), request)
