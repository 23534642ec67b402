"""CNI plugin dummy: an interface of the container that leads nowhere, for its addresses. Cold."""

from __future__ import annotations

import errno

from cni_plugins.links import ownership
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
from runtime_core.errors import FailedPrecondition, InvalidArgument
from runtime_core.network.kernel_errors import describe_error
from runtime_core.network.link_messages import alias_message, link_message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime_core.cni.request import Request
    from runtime_core.network.links import Link

_KIND = "dummy"


def add(request: Request) -> dict[str, Any]:
    with AttachmentSetup(request) as setup:
        link = _create_link(request, setup)
        result = add_result(
            request, [describe_interface(link, request.netns)], allocate_addresses(request, setup.undo, is_needed=True)
        )
        configure(setup, link, result)
    return result


def delete(request: Request) -> None:
    """Undo ADD. Idempotent; anything may be missing, also the namespace."""
    run_all(lambda: delegate_ipam(request, "DEL"), lambda: remove_container_link(request, _KIND))


def check(request: Request) -> None:
    check_container(request, check_addresses(request), _KIND)


def gc(request: Request) -> None:
    """Addresses: the links go with their namespaces."""
    delegate_ipam(request, "GC")


def status(request: Request) -> None:
    if not request.section("ipam"):
        raise InvalidArgument("ipam: dummy connects nothing without addresses")
    delegate_ipam(request, "STATUS")


def _create_link(request: Request, setup: AttachmentSetup) -> Link:
    name = request.interface
    try:
        link = setup.container.create(
            name, link_message(_KIND, name, []), alias_message(ownership.link_alias(request), name=name)
        )
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise FailedPrecondition(f"type: this kernel has no {_KIND}: {error}") from error
        raise describe_error(error, f"making {_KIND} {name}") from error
    setup.undo.callback(setup.container.remove_by_index, link.index)
    return link
