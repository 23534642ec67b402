"""CNI plugin ptp: a veth pair from the container to the host, which routes.

Options: ipMasq, ipMasqBackend, mtu.
"""

from __future__ import annotations

import ipaddress

from cni_plugins import reference
from cni_plugins.main import masquerading, options, ownership
from cni_plugins.main.container_check import check_addresses, check_container
from cni_plugins.main.container_link import (
    Ends,
    allot,
    configure,
    delegate,
    described,
    each,
    gateway,
    result,
)
from cni_plugins.main.host_veth import check_carrier, connect, remove, remove_stale
from runtime_core.errors import FailedPrecondition, InvalidArgument, NotFound
from runtime_core.kernel import netlink
from runtime_core.network.link_messages import HOST_SCOPE, address_message, route_message
from runtime_core.network.links import Links
from runtime_core.network.refusals import refused
from runtime_core.network.settle import AddressEvents
from runtime_core.network.sysctl import write_sysctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime_core.cni.request import Request
    from runtime_core.kernel.netlink import Message
    from runtime_core.network.links import Link


def add(request: Request) -> dict[str, Any]:
    mtu, is_masqueraded = options.mtu(request), masquerading.check_options(request)
    with Ends(request) as ends:
        near, far = connect(request, ends, mtu=mtu)
        allotted = allot(request, ends.undo, is_needed=True)
        found = result(request, [described(near), described(far, request.netns)], allotted)
        for ip in found["ips"]:
            ip["gateway"] = gateway(ip)
        routes = [message for ip in found["ips"] for message in _inside(far.index, ip)]
        configure(ends, far, found, prefix_routes=False, routes=routes)
        check_carrier(near)
        _route(ends.host, near, found["ips"])
        if is_masqueraded:
            masquerading.masquerade(request, found["ips"])
    return found


def delete(request: Request) -> None:
    """Idempotent with anything missing, also the namespace."""
    each(lambda: delegate(request, "DEL"), lambda: remove(request), lambda: masquerading.unmasquerade(request))


def check(request: Request) -> None:
    is_masqueraded = masquerading.check_options(request)
    previous = check_addresses(request)
    name = ownership.port_name(request, previous)
    with netlink.Socket() as sock:
        links = Links(sock)
        near = links.find(name)
        if near is None or not near.is_up:
            raise NotFound(f"veth {name} is missing or down")
        routes, present = links.routes(near.index), links.addresses(near.index)
    for ip in previous["ips"]:
        for text, found in (
            (_alone(ip["address"]), [destination for destination, _by in routes]),
            (_alone(gateway(ip)), present),
        ):
            if text not in found:
                raise FailedPrecondition(f"{name} lacks {text}")
    check_container(request, previous, "veth")
    if is_masqueraded:
        masquerading.check(request, previous)


def gc(request: Request) -> None:
    """Links, masquerading and addresses of whoever is not in cni.dev/valid-attachments."""
    each(
        lambda: reference.remove_stale(request),
        lambda: delegate(request, "GC"),
        lambda: remove_stale(request),
        lambda: masquerading.remove_stale(request),
    )


def status(request: Request) -> None:
    options.mtu(request)
    if masquerading.check_options(request):
        masquerading.status(request)
    if not request.section("ipam"):
        raise InvalidArgument("ipam: ptp connects nothing without addresses")
    delegate(request, "STATUS")


def _inside(index: int, ip: dict[str, Any]) -> list[Message]:
    """The network is behind the gateway, and the gateway alone at the other end of the link."""
    address, by = ip["address"], ip["gateway"]
    own = address.partition("/")[0]
    network = str(ipaddress.ip_interface(address).network)
    messages = [route_message(index, _alone(by), "", source=own)]
    if network != _alone(own):
        messages.append(route_message(index, network, by, source=own))
    return messages


def _route(links: Links, near: Link, ips: list[dict[str, Any]]) -> None:
    addresses = [address_message(near.index, _alone(ip["gateway"]), says_when_ready=True) for ip in ips]
    routes = [route_message(near.index, _alone(ip["address"]), "", scope=HOST_SCOPE) for ip in ips]
    try:
        with AddressEvents() as events:
            links.send(*addresses, *routes)
            events.wait_settled(links, near.index)
    except OSError as error:
        raise refused(error, f"addresses and routes of {near.name}") from error
    for ip in ips:
        write_sysctl("ipv6/conf/all/forwarding" if ":" in ip["address"] else "ipv4/ip_forward", "1")


def _alone(address: str) -> str:
    """An address as a network of its own."""
    ip = ipaddress.ip_interface(address).ip
    return f"{ip}/{ip.max_prefixlen}"
