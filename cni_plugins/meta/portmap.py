"""CNI plugin portmap: ports of the node lead to the container, as runtimeConfig.portMappings says.

Options: backend, snat, masqAll, markMasqBit, externalSetMarkChain, conditionsV4, conditionsV6. An option that is
iptables' alone chooses that backend where none is named.
"""

from __future__ import annotations

import ipaddress

from cni_plugins import reference
from cni_plugins.chained import packet_filters, portmap_options
from cni_plugins.chained.container import previous_result
from cni_plugins.chained.route_localnet import enable_route_localnet
from runtime_core.errors import FailedPrecondition, InvalidArgument
from runtime_core.interfaces.packet_filter import PortMap
from runtime_core.network import conntrack
from runtime_core.network.nftables import Socket
from runtime_core.network.packet_filter import reference_rules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime_core.cni.request import Request


def add(request: Request) -> dict[str, Any]:
    options, ports = portmap_options.parse_options(request), portmap_options.parse_ports(request)
    driver = packet_filters.choose_driver(request, needs_iptables=portmap_options.needs_iptables(request))
    addresses = portmap_options.pod_addresses(request)
    if ports:
        if not addresses:
            raise InvalidArgument(f"prevResult.ips: {request.interface} has no address to which a port could lead")
        if options.is_masquerading:
            enable_route_localnet(addresses)
        driver.map_ports(addresses, ports, options, request.owner)
        _forget_earlier(addresses, ports)
    return previous_result(request)


def delete(request: Request) -> None:
    """By what is recorded, whatever prevResult, namespace and configuration have become."""
    needs_iptables = portmap_options.needs_iptables(request)
    packet_filters.undo_in_candidates(
        request, needs_iptables=needs_iptables, undo_in=lambda driver: _unmap(driver, request.owner)
    )
    _unmap(reference_rules(), request.owner)


def check(request: Request) -> None:
    options, ports = portmap_options.parse_options(request), portmap_options.parse_ports(request)
    driver = packet_filters.choose_driver(request, needs_iptables=portmap_options.needs_iptables(request))
    addresses = portmap_options.pod_addresses(request)
    lacking = driver.missing_ports(addresses, ports, options, request.owner) if ports else []
    if lacking and not _are_of_reference(addresses, ports, request.owner):
        raise FailedPrecondition(f"of the port maps is gone: {', '.join(lacking)}")


def gc(request: Request) -> None:
    """Take away the port maps of whoever is not in cni.dev/valid-attachments; mend what is known to be broken."""
    reference.remove_stale(request)
    for driver in packet_filters.candidate_drivers(request, needs_iptables=portmap_options.needs_iptables(request)):
        owners = {owner for _port, _address, owner in driver.mapped_ports()}
        for owner in packet_filters.stale_owners(request, owners):
            _unmap(driver, owner)
        driver.repair()


def status(request: Request) -> None:
    portmap_options.parse_options(request)
    driver = packet_filters.choose_driver(request, needs_iptables=portmap_options.needs_iptables(request))
    packet_filters.check_reachable(driver.mapped_ports)


def _forget_earlier(addresses: list[str], ports: list[PortMap]) -> None:
    """Who was sending already is led to the container by the next packet."""
    versions = {ipaddress.ip_interface(address).version for address in addresses}
    flows = []
    for port in ports:
        ip = ipaddress.ip_address(port.host_ip) if port.host_ip else None
        ip_version = str(ip) if ip is not None and not ip.is_unspecified else ""
        fitting = [version for version in versions if port.protocol == "udp" and (ip is None or ip.version == version)]
        flows += [(version, port.host_port, ip_version) for version in fitting]
    _forget(conntrack.forget_to_port, flows)


def _are_of_reference(addresses: list[str], ports: list[PortMap], owner: str) -> bool:
    """Whether the reference plugin has mapped all of the ports."""
    wanted = set()
    for interface in map(ipaddress.ip_interface, addresses):
        for port in ports:
            ip = ipaddress.ip_address(port.host_ip) if port.host_ip else None
            if ip is None or ip.version == interface.version:
                host = "" if ip is None or ip.is_unspecified else str(ip)
                wanted.add((PortMap(port.protocol, port.host_port, port.container_port, host), str(interface.ip)))
    return wanted <= set(reference_rules().mapped_ports(owner))


def _unmap(driver: Any, owner: str) -> bool:
    """Whether there was anything."""
    had = driver.unmap_ports(owner)
    _forget(conntrack.forget_from, [(address, port.container_port) for port, address in had if port.protocol == "udp"])
    return bool(had)


def _forget(forget: Any, flows: list[Any]) -> None:
    if not flows:
        return
    try:
        with Socket(closes_later=True) as sock:
            for flow in flows:
                forget(sock, *flow)
    except OSError:
        return  # a kernel without ctnetlink: the flows end by themselves, later
