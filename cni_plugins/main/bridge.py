"""CNI plugin bridge: a veth pair from the container to a bridge of the host.

Options: bridge, isGateway, isDefaultGateway, forceAddress, ipMasq, ipMasqBackend, mtu, hairpinMode, promiscMode, vlan,
vlanTrunk, preserveDefaultVlan, macspoofchk, enabledad, disableContainerInterface, portIsolation, mac.
"""

from __future__ import annotations

from cni_plugins import reference
from cni_plugins.links import bridge_device, masquerading, ownership
from cni_plugins.links.bridge_options import Options
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
from runtime_core.kernel import failpoint, netlink
from runtime_core.network.links import Links
from runtime_core.network.packet_filter import reference_rules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime_core.cni.request import Request
    from runtime_core.network.links import Link

_SYSCTLS = (("ipv6", "accept_dad", "0"), ("ipv4", "arp_notify", "1"))
_DUPLICATE_DETECTION_SYSCTLS = (("ipv6", "enhanced_dad", "1"), ("ipv6", "accept_dad", "1"), ("ipv4", "arp_notify", "1"))


def add(request: Request) -> dict[str, Any]:
    """Host link, container link, addresses, gateway, masquerading; an error undoes all of it."""
    options = Options(request)
    with AttachmentSetup(request) as setup:
        bridge, host_link, container_link = _connect(request, setup, options)
        result = _allocate(request, setup, options, (bridge, host_link, container_link))
        _configure_container_link(setup, options, host_link, container_link, result)
        _configure_gateway(setup, options, bridge, result)
        if options.ip_masq and result["ips"]:
            masquerading.masquerade(request, result["ips"])
    return result


def delete(request: Request) -> None:
    """Undo ADD. Idempotent; anything may be missing, also the namespace."""
    port = ownership.host_interface_name(request)
    steps = [lambda: delegate_ipam(request, "DEL"), lambda: remove_veth(request), lambda: masquerading.unmasquerade(request)]
    if request.config.get("macspoofchk"):
        steps += [lambda: _unrestrict_ports([port]), lambda: reference_rules().unguard(request.owner)]
    run_all(*steps)


def check(request: Request) -> None:
    options = Options(request)
    previous = check_addresses(request)
    port = ownership.port_name(request, previous, {options.name, options.vlan_interface})
    with netlink.Socket() as sock:
        bridge_device.check_bridge(Links(sock), options, port, previous)

    def check_link(link: Link) -> None:
        if options.mac_spoof_check and not reference_rules().is_guarded(request.owner):
            from cni_plugins.links import mac_spoofing  # here: few ask for it

            mac_spoofing.check_port(port, link.mac)

    check_container(request, previous, "veth", check_link, up=not options.container_stays_down)
    if options.ip_masq:
        masquerading.check(request, previous)


def gc(request: Request) -> None:
    """Remove ports, rules, masquerading and addresses of attachments that are not in cni.dev/valid-attachments."""
    run_all(
        lambda: reference.remove_stale(request),
        lambda: delegate_ipam(request, "GC"),
        lambda: remove_stale_veths(request),
        lambda: _unrestrict_vanished_ports(request),
        lambda: masquerading.remove_stale(request),
    )


def status(request: Request) -> None:
    options = Options(request)
    with netlink.Socket() as sock:
        bridge = Links(sock).find(options.name)
    if bridge is not None:
        bridge_device.check_kind(bridge, options)
    if options.ip_masq:
        masquerading.status(request)
    delegate_ipam(request, "STATUS")


def _connect(request: Request, setup: AttachmentSetup, options: Options) -> tuple[Link, Link, Link]:
    """(the bridge, its new port, the container's end, still down)."""
    bridge = bridge_device.ensure_bridge(setup.host, options)
    host_link, container_link = create_veth(request, setup, master=bridge.index, mtu=options.mtu, mac=options.mac)
    bridge_device.configure_port(setup.host, host_link, options)
    if options.mac_spoof_check:
        from cni_plugins.links import mac_spoofing  # here: few ask for it

        setup.undo.callback(mac_spoofing.unrestrict_ports, [host_link.name])
        mac_spoofing.restrict_port(host_link.name, container_link.mac)
    return bridge, host_link, container_link


def _allocate(request: Request, setup: AttachmentSetup, options: Options, links: tuple[Link, Link, Link]) -> dict[str, Any]:
    """The result of ADD, with addresses from IPAM, their gateways, and the default routes that the options ask for."""
    bridge, host_link, container_link = links
    addresses = allocate_addresses(request, setup.undo)
    failpoint.hit("cni.bridge.allotted")
    interfaces = [
        describe_interface(bridge), describe_interface(host_link), describe_interface(container_link, request.netns),
    ]  # fmt: skip
    result = add_result(request, interfaces, addresses)
    for ip in result["ips"]:
        if options.is_gateway:
            ip["gateway"] = gateway_of(ip)
        default = "::/0" if ":" in ip["address"] else "0.0.0.0/0"
        if options.is_default_gateway and not any(route["dst"] == default for route in result["routes"]):
            result["routes"].append({"dst": default, "gw": ip["gateway"]})
    return result


def _configure_container_link(
    setup: AttachmentSetup, options: Options, host_link: Link, container_link: Link, result: dict[str, Any]
) -> None:
    if options.container_stays_down:
        return
    settings = _DUPLICATE_DETECTION_SYSCTLS if options.detects_duplicates else _SYSCTLS
    configure(setup, container_link, result, settings, detects_duplicates=options.detects_duplicates)
    check_carrier(host_link)


def _configure_gateway(setup: AttachmentSetup, options: Options, bridge: Link, result: dict[str, Any]) -> None:
    if options.is_gateway:
        vlan_interface = bridge_device.add_gateway_addresses(setup.host, options, bridge, result["ips"])
        if vlan_interface is not None:
            result["interfaces"].append(describe_interface(vlan_interface))
    failpoint.hit("cni.bridge.configured")


def _unrestrict_ports(ports: list[str]) -> None:
    from cni_plugins.links import mac_spoofing

    mac_spoofing.unrestrict_ports(ports)


def _unrestrict_vanished_ports(request: Request) -> None:
    """Remove the rules of ports that no longer exist."""
    if request.config.get("macspoofchk") and request.valid_attachments() is not None:
        from cni_plugins.links import mac_spoofing

        with netlink.Socket() as sock:
            present = {link.name for link in Links(sock).all()}
        mac_spoofing.unrestrict_ports([port for port in mac_spoofing.restricted_ports() if port not in present])
