"""CNI plugin loopback: lo of the container is up."""

from __future__ import annotations

import os

from runtime_core.errors import FailedPrecondition, NotFound
from runtime_core.kernel import netlink
from runtime_core.network.links import Links
from runtime_core.network.namespace import entered, open_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime_core.cni.request import Request

_LO = 1


def add(request: Request) -> dict[str, Any]:
    namespace = open_namespace(request.netns)
    try:
        with entered(namespace), netlink.Socket() as sock:
            Links(sock).set_up(_LO)
    finally:
        os.close(namespace)
    if request.previous is not None:
        return request.previous
    return {
        "interfaces": [{"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": request.netns}],
        "ips": [{"interface": 0, "address": "127.0.0.1/8"}, {"interface": 0, "address": "::1/128"}],
    }


def delete(request: Request) -> None:
    """Nothing: lo goes with its namespace."""


def check(request: Request) -> None:
    namespace = open_namespace(request.netns)
    try:
        with entered(namespace), netlink.Socket() as sock:
            link = Links(sock).find("lo")
    finally:
        os.close(namespace)
    if link is None:
        raise NotFound("the container has no lo")
    if not link.is_up:
        raise FailedPrecondition("lo of the container is down")


def gc(request: Request) -> None:
    """Nothing is kept."""


def status(request: Request) -> None:
    """Always ready."""
