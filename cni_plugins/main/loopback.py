"""CNI plugin loopback: lo of the container is up. Cold."""

from __future__ import annotations

import ipaddress
import os

from runtime_core.errors import FailedPrecondition, NotFound
from runtime_core.kernel import netlink
from runtime_core.network.links import Links
from runtime_core.network.namespace import in_namespace, open_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from runtime_core.cni.request import Request

_LO = 1


def add(request: Request) -> dict[str, Any]:
    """In a chain, the result is that of the plugin before."""
    addresses: list[str] = []

    def work(links: Links) -> None:
        links.set_up(_LO)
        addresses.extend(links.addresses(_LO))

    _in_container(request, work)
    if request.previous is not None:
        return request.previous
    own = [address for address in addresses if ipaddress.ip_interface(address).is_loopback]
    return {
        "interfaces": [{"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": request.netns}],
        "ips": [{"interface": 0, "address": address} for address in own],
    }


def delete(request: Request) -> None:
    """Nothing: lo goes with its namespace, and others of this container's networks may use it until then."""


def check(request: Request) -> None:
    def work(links: Links) -> None:
        link = links.find("lo")
        if link is None:
            raise NotFound("the container has no lo")
        if not link.is_up:
            raise FailedPrecondition("lo of the container is down")

    _in_container(request, work)


def gc(request: Request) -> None:
    """Nothing is kept."""


def status(request: Request) -> None:
    """Always ready."""


def _in_container(request: Request, work: Callable[[Links], None]) -> None:
    namespace = open_namespace(request.netns)
    try:
        with in_namespace(namespace), netlink.Socket() as sock:
            work(Links(sock))
    finally:
        os.close(namespace)
