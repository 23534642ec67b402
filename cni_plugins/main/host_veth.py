"""A veth pair from the host into the container. Cold."""

from __future__ import annotations

from cni_plugins.main import ownership
from runtime_core.errors import NotFound, from_oserror
from runtime_core.kernel import netlink
from runtime_core.network.link_messages import alias_message, veth_message
from runtime_core.network.links import Link, Links
from runtime_core.network.sysctl import write_sysctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_plugins.main.container_link import Ends
    from runtime_core.cni.request import Request


def connect(request: Request, ends: Ends, *, master: int = 0, mtu: int = 0, mac: str = "") -> tuple[Link, Link]:
    """(the host's end, up; the container's end, still down). The host's says whose it is."""
    name = ownership.host_name(request)
    ends.host.remove(name)  # what an ADD that was killed left behind
    ends.undo.callback(ends.host.remove, name)
    pair = veth_message(name, request.interface, namespace=ends.namespace, master=master, mtu=mtu, mac=mac)
    try:
        near = ends.host.make(name, pair, alias_message(ownership.alias(request), name=name))
    except OSError as error:
        raise from_oserror(error, f"making veth {name} with mtu {mtu or 'as usual'}") from error
    write_sysctl(f"ipv6/conf/{name}/accept_ra", "0")  # CVE-2020-10749
    far = ends.inside.find(request.interface)
    if far is None:
        raise NotFound(f"veth {name} vanished while it was set up")
    return near, far


def remove(request: Request) -> None:
    """Both ends; idempotent."""
    with netlink.Socket() as sock:
        Links(sock).remove(ownership.host_name(request))


def remove_stale(request: Request) -> None:
    """Of this network's attachments that are not in cni.dev/valid-attachments."""
    with netlink.Socket() as sock:
        ownership.remove_stale(Links(sock), request)
