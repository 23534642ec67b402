"""Whether the container's interface is as ADD left it, the same for all plugins. Cold."""

from __future__ import annotations

import ipaddress
import os
from contextlib import ExitStack

from cni_plugins.links.container_link import route_gateways
from runtime_core.errors import FailedPrecondition, InvalidArgument, NotFound
from runtime_core.kernel import netlink
from runtime_core.network.links import Links
from runtime_core.network.namespace import in_namespace, open_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from runtime_core.cni.request import Request
    from runtime_core.network.links import Link


def check_addresses(request: Request) -> dict[str, Any]:
    """That the IPAM plugin still knows them; prevResult, which every CHECK needs."""
    if request.section("ipam"):
        request.ipam("CHECK")
    if request.previous is None:
        raise InvalidArgument("prevResult is missing")
    return request.previous


def check_container(
    request: Request, previous: dict[str, Any], kind: str, check_link: Callable[[Link], None] | None = None, *, up: bool = True
) -> None:
    """That the container's interface is as prevResult has it: there, of `kind` ("" is any), up, with its addresses and routes."""
    name = request.interface
    with ExitStack() as closing:
        namespace = open_namespace(request.netns)
        closing.callback(os.close, namespace)
        with in_namespace(namespace):
            links = Links(closing.enter_context(netlink.Socket()))
        link = links.find(name)
        if link is None or (up and not link.is_up):
            raise NotFound(f"{name} of the container is missing or down")
        if kind and link.kind != kind:
            raise FailedPrecondition(f"{name} of the container is a {link.kind or 'real device'}, not a {kind}")
        _check_mac(request, previous, link)
        if check_link is not None:
            check_link(link)
        _check_configured(request, previous, set(links.addresses(link.index)), links.routes(link.index))


def _check_mac(request: Request, previous: dict[str, Any], link: Link) -> None:
    listed = [
        interface for interface in previous["interfaces"] if interface.get("name") == link.name and interface.get("sandbox")
    ]
    for interface in listed:
        if interface["sandbox"] != request.netns:
            raise InvalidArgument(f"prevResult: {link.name} is in {interface['sandbox']}, not in CNI_NETNS {request.netns}")
        if interface.get("mac") and interface["mac"] != link.mac:
            raise FailedPrecondition(f"{link.name} of the container has the address {link.mac}, not {interface['mac']}")


def _check_configured(request: Request, previous: dict[str, Any], present: set[str], routes: set[tuple[str, str]]) -> None:
    ours = [ip for ip in previous["ips"] if _is_ours(request, previous, ip)]
    lacking = {str(ipaddress.ip_interface(ip["address"])) for ip in ours} - present
    if lacking:
        raise FailedPrecondition(f"{request.interface} of the container lacks {', '.join(sorted(lacking))}")
    gateways = route_gateways(previous)
    for route in previous["routes"]:
        by = route.get("gw") or ("" if route.get("scope") else gateways.get(":" in route["dst"], ""))
        wanted = str(ipaddress.ip_network(route["dst"], strict=False)), str(ipaddress.ip_address(by)) if by else ""
        if wanted not in routes:
            raise FailedPrecondition(f"the container lacks the route to {route['dst']} by {by or request.interface}")


def _is_ours(request: Request, previous: dict[str, Any], ip: dict[str, Any]) -> bool:
    """Of the container's interface, not of another one that a chain lists."""
    index, interfaces = ip.get("interface"), previous["interfaces"]
    if not isinstance(index, int) or not 0 <= index < len(interfaces):
        return True
    return bool(interfaces[index].get("name") == request.interface)
