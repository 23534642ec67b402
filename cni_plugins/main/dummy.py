"""CNI plugin dummy: an interface of the container that leads nowhere, for its addresses. Cold."""

from __future__ import annotations

import errno

from cni_plugins.main import ownership
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
from runtime_core.errors import FailedPrecondition, InvalidArgument
from runtime_core.network.link_messages import alias_message, link_message
from runtime_core.network.refusals import refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime_core.cni.request import Request
    from runtime_core.network.links import Link

_KIND = "dummy"


def add(request: Request) -> dict[str, Any]:
    with Ends(request) as ends:
        link = _make(request, ends)
        found = result(request, [described(link, request.netns)], allot(request, ends.undo, is_needed=True))
        configure(ends, link, found)
    return found


def delete(request: Request) -> None:
    """Idempotent with anything missing, also the namespace."""
    each(lambda: delegate(request, "DEL"), lambda: remove_inside(request, _KIND))


def check(request: Request) -> None:
    check_container(request, check_addresses(request), _KIND)


def gc(request: Request) -> None:
    """Addresses: the links go with their namespaces."""
    delegate(request, "GC")


def status(request: Request) -> None:
    if not request.section("ipam"):
        raise InvalidArgument("ipam: dummy connects nothing without addresses")
    delegate(request, "STATUS")


def _make(request: Request, ends: Ends) -> Link:
    name = request.interface
    try:
        link = ends.inside.make(name, link_message(_KIND, name, []), alias_message(ownership.alias(request), name=name))
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise FailedPrecondition(f"type: this kernel has no {_KIND}: {error}") from error
        raise refused(error, f"making {_KIND} {name}") from error
    ends.undo.callback(ends.inside.remove_at, link.index)
    return link
