"""Links of the container that stand on another one, their master: macvlan, ipvlan, vlan. Cold."""

from __future__ import annotations

import errno
import hashlib

from cni_plugins.main import options, ownership
from cni_plugins.main.container_link import Ends
from runtime_core.errors import FailedPrecondition, InvalidArgument, NotFound
from runtime_core.kernel import netlink
from runtime_core.network.link_messages import link_message, rename_message
from runtime_core.network.links import Link, Links
from runtime_core.network.refusals import refused

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
            options.interface_name(self.name, "master")
        self.is_inside: bool = request.option("linkInContainer", bool, False)
        self.mtu = options.mtu(request)

    def find(self, links: Links) -> Link:
        """In the namespace of `links`; NotFound when it is missing."""
        if self.name:
            found = links.find(self.name)
        else:
            index = links.default_route()
            found = links.at(index) if index else None
        where = "in the container" if self.is_inside else "on this node"
        if found is None:
            raise NotFound(f"master: there is no {self.name or 'default route'} {where}")
        if self.mtu > found.mtu:
            raise InvalidArgument(f"mtu: {self.mtu} is more than the {found.mtu} of {found.name}")
        return found


def make(request: Request, ends: Ends, master: Master, kind: str, data: list[tuple[int, Any]], mac: str = "") -> Link:
    """The container's interface, still down."""
    links = ends.inside if master.is_inside else ends.host
    parent = master.find(links)
    # The kernel refuses a name that the namespace of the master has, wherever the link is to be born.
    temporary = "tmp" + hashlib.sha256(request.owner.encode()).hexdigest()[:11]
    ends.inside.remove(temporary)  # what an ADD that was killed left behind
    namespace = -1 if master.is_inside else ends.namespace
    message = link_message(kind, temporary, data, mtu=master.mtu, mac=mac, parent=parent.index, namespace=namespace)
    try:
        links.send(message)
        born = ends.inside.find(temporary)
        if born is None:
            raise NotFound(f"{kind} {temporary} vanished while it was set up")
        ends.undo.callback(ends.inside.remove_at, born.index)
        return ends.inside.make(request.interface, rename_message(born.index, request.interface, ownership.alias(request)))
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise FailedPrecondition(f"type: this kernel has no {kind}: {error}") from error
        raise refused(error, f"making {kind} {request.interface} on {parent.name}") from error


def check(request: Request, master: Master, link: Link) -> None:
    """That `link` of the container, in whose namespace this thread is not, stands on its master."""
    if master.is_inside:
        return
    with netlink.Socket() as sock:
        parent = master.find(Links(sock))
    if link.parent != parent.index:
        raise FailedPrecondition(f"{request.interface} of the container does not stand on {parent.name}")


def status(master: Master) -> None:
    """NotFound when ADD would find no master. In a container it can only be looked for then."""
    if not master.is_inside:
        with netlink.Socket() as sock:
            master.find(Links(sock))
