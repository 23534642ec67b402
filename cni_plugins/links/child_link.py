"""Container links on top of a parent link, the master: macvlan, ipvlan, vlan. Cold."""

from __future__ import annotations

import errno
import hashlib

from cni_plugins.links import ownership
from cni_plugins.links.container_link import AttachmentSetup
from cni_plugins.options import link_options
from runtime_core.errors import FailedPrecondition, InvalidArgument, NotFound
from runtime_core.kernel import netlink
from runtime_core.network.kernel_errors import describe_error
from runtime_core.network.link_messages import link_message, rename_message
from runtime_core.network.links import Link, Links

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime_core.cni.request import Request


class Master:
    """What the configuration says of it."""

    __slots__ = ("is_inside", "mtu", "name")

    def __init__(self, request: Request, name: str = "") -> None:
        """`name`: where the configuration has none; without either it is the link of the default route."""
        self.name = request.option("master", str, "") or name
        if self.name:
            link_options.interface_name(self.name, "master")
        self.is_inside: bool = request.option("linkInContainer", bool, False)
        self.mtu = link_options.mtu(request)

    def find(self, links: Links) -> Link:
        """In the namespace of `links`; NotFound when it is missing."""
        if self.name:
            found = links.find(self.name)
        else:
            index = links.default_route()
            found = links.find_by_index(index) if index else None
        where = "in the container" if self.is_inside else "on this node"
        if found is None:
            raise NotFound(f"master: there is no {self.name or 'default route'} {where}")
        if self.mtu > found.mtu:
            raise InvalidArgument(f"mtu: {self.mtu} is more than the {found.mtu} of {found.name}")
        return found


def create_child_link(
    request: Request, setup: AttachmentSetup, master: Master, kind: str, data: list[tuple[int, Any]], mac: str = ""
) -> Link:
    """The container's interface, still down."""
    links = setup.container if master.is_inside else setup.host
    parent = master.find(links)
    # The kernel refuses a name that the namespace of the master has, wherever the link is to be born.
    temporary = "tmp" + hashlib.sha256(request.owner.encode()).hexdigest()[:11]
    setup.container.remove(temporary)  # what an ADD that was killed left behind
    namespace = -1 if master.is_inside else setup.namespace
    message = link_message(kind, temporary, data, mtu=master.mtu, mac=mac, parent=parent.index, namespace=namespace)
    try:
        links.send(message)
        born = setup.container.find(temporary)
        if born is None:
            raise NotFound(f"{kind} {temporary} vanished while it was set up")
        setup.undo.callback(setup.container.remove_by_index, born.index)
        return setup.container.create(
            request.interface, rename_message(born.index, request.interface, ownership.link_alias(request))
        )
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise FailedPrecondition(f"type: this kernel has no {kind}: {error}") from error
        raise describe_error(error, f"making {kind} {request.interface} on {parent.name}") from error


def check_parent(request: Request, master: Master, link: Link) -> None:
    """That `link` of the container, in whose namespace this thread is not, stands on its master."""
    if master.is_inside:
        return
    with netlink.Socket() as sock:
        parent = master.find(Links(sock))
    if link.parent != parent.index:
        raise FailedPrecondition(f"{request.interface} of the container does not stand on {parent.name}")


def check_master(master: Master) -> None:
    """NotFound when ADD would find no master. In a container it can only be looked for then."""
    if not master.is_inside:
        with netlink.Socket() as sock:
            master.find(Links(sock))
