"""CNI plugin ptp: a veth pair from the container to the host, which routes.

Options: ipMasq, ipMasqBackend, mtu.
"""

from __future__ import annotations

import ipaddress

from cni_plugins import reference
from cni_plugins.links import masquerading, ownership
from cni_plugins.links.container_check import check_addresses, check_container
from cni_plugins.links.container_link import (
    AttachmentSetup,
    add_result,
    allocate_addresses,
    configure,
    delegate_ipam,
    describe_interface,
    gateway_of,
    run_all,
)
from cni_plugins.links.host_veth import check_carrier, create_veth, remove_stale_veths, remove_veth
from cni_plugins.options import link_options
from runtime_core.errors import FailedPrecondition, InvalidArgument, NotFound
from runtime_core.kernel import netlink
from runtime_core.network.duplicate_detection import AddressEvents
from runtime_core.network.kernel_errors import describe_error
from runtime_core.network.link_messages import HOST_SCOPE, address_message, route_message
from runtime_core.network.links import Links
from runtime_core.network.sysctl import write_sysctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime_core.cni.request import Request
    from runtime_core.kernel.netlink import Message
    from runtime_core.network.links import Link


def add(request: Request) -> dict[str, Any]:
    mtu, is_masqueraded = link_options.mtu(request), masquerading.check_options(request)
    with AttachmentSetup(request) as setup:
        host_link, container_link = create_veth(request, setup, mtu=mtu)
        addresses = allocate_addresses(request, setup.undo, is_needed=True)
        result = add_result(
            request, [describe_interface(host_link), describe_interface(container_link, request.netns)], addresses
        )
        for ip in result["ips"]:
            ip["gateway"] = gateway_of(ip)
        routes = [message for ip in result["ips"] for message in _container_routes(container_link.index, ip)]
        configure(setup, container_link, result, prefix_routes=False, routes=routes)
        check_carrier(host_link)
        _configure_host_link(setup.host, host_link, result["ips"])
        if is_masqueraded:
            masquerading.masquerade(request, result["ips"])
    return result


def delete(request: Request) -> None:
    """Undo ADD. Idempotent; anything may be missing, also the namespace."""
    run_all(lambda: delegate_ipam(request, "DEL"), lambda: remove_veth(request), lambda: masquerading.unmasquerade(request))


def check(request: Request) -> None:
    is_masqueraded = masquerading.check_options(request)
    previous = check_addresses(request)
    name = ownership.port_name(request, previous)
    with netlink.Socket() as sock:
        links = Links(sock)
        host_link = links.find(name)
        if host_link is None or not host_link.is_up:
            raise NotFound(f"veth {name} is missing or down")
        routes, present = links.routes(host_link.index), links.addresses(host_link.index)
    for ip in previous["ips"]:
        for text, found in (
            (_host_prefix(ip["address"]), [destination for destination, _by in routes]),
            (_host_prefix(gateway_of(ip)), present),
        ):
            if text not in found:
                raise FailedPrecondition(f"{name} lacks {text}")
    check_container(request, previous, "veth")
    if is_masqueraded:
        masquerading.check(request, previous)


def gc(request: Request) -> None:
    """Remove links, masquerading and addresses of attachments that are not in cni.dev/valid-attachments."""
    run_all(
        lambda: reference.remove_stale(request),
        lambda: delegate_ipam(request, "GC"),
        lambda: remove_stale_veths(request),
        lambda: masquerading.remove_stale(request),
    )


def status(request: Request) -> None:
    link_options.mtu(request)
    if masquerading.check_options(request):
        masquerading.status(request)
    if not request.section("ipam"):
        raise InvalidArgument("ipam: ptp connects nothing without addresses")
    delegate_ipam(request, "STATUS")


def _container_routes(index: int, ip: dict[str, Any]) -> list[Message]:
    """The container's routes: to the gateway by the link, to the rest of the network by the gateway."""
    address, by = ip["address"], ip["gateway"]
    own = address.partition("/")[0]
    network = str(ipaddress.ip_interface(address).network)
    messages = [route_message(index, _host_prefix(by), "", source=own)]
    if network != _host_prefix(own):
        messages.append(route_message(index, network, by, source=own))
    return messages


def _configure_host_link(links: Links, host_link: Link, ips: list[dict[str, Any]]) -> None:
    addresses = [address_message(host_link.index, _host_prefix(ip["gateway"]), follows_accept_dad=True) for ip in ips]
    routes = [route_message(host_link.index, _host_prefix(ip["address"]), "", scope=HOST_SCOPE) for ip in ips]
    try:
        with AddressEvents() as events:
            links.send(*addresses, *routes)
            events.wait_for_duplicate_detection(links, host_link.index)
    except OSError as error:
        raise describe_error(error, f"addresses and routes of {host_link.name}") from error
    for ip in ips:
        write_sysctl("ipv6/conf/all/forwarding" if ":" in ip["address"] else "ipv4/ip_forward", "1")


def _host_prefix(address: str) -> str:
    """The address with the full prefix length (/32 or /128)."""
    ip = ipaddress.ip_interface(address).ip
    return f"{ip}/{ip.max_prefixlen}"
