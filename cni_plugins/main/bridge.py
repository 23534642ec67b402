"""CNI plugin bridge: a veth pair from the container to a bridge of the host.

Options: bridge, isGateway, isDefaultGateway, forceAddress, ipMasq, ipMasqBackend, mtu, hairpinMode, promiscMode, vlan,
vlanTrunk, preserveDefaultVlan, macspoofchk, enabledad, disableContainerInterface, portIsolation, mac.
"""

from __future__ import annotations

from cni_plugins import reference
from cni_plugins.main import bridge_device, masquerading, ownership
from cni_plugins.main.bridge_options import Options
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
from runtime_core.kernel import failpoint, netlink
from runtime_core.network.links import Links
from runtime_core.network.packet_filter import reference_rules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime_core.cni.request import Request
    from runtime_core.network.links import Link

_SETTINGS = (("ipv6", "accept_dad", "0"), ("ipv4", "arp_notify", "1"))
_FIND_DUPLICATES = (("ipv6", "enhanced_dad", "1"), ("ipv6", "accept_dad", "1"), ("ipv4", "arp_notify", "1"))


def add(request: Request) -> dict[str, Any]:
    options = Options(request)
    with Ends(request) as ends:
        bridge = bridge_device.ensure(ends.host, options)
        near, far = connect(request, ends, master=bridge.index, mtu=options.mtu, mac=options.mac)
        bridge_device.configure_port(ends.host, near, options)
        if options.mac_spoof_check:
            _guard(near.name, far.mac, ends)
        allotted = allot(request, ends.undo)
        failpoint.hit("cni.bridge.allotted")
        found = result(request, [described(bridge), described(near), described(far, request.netns)], allotted)
        _complete(options, found)
        if not options.container_stays_down:
            _bring_up(ends, options, near, far, found)
        if options.is_gateway:
            other = bridge_device.be_gateway(ends.host, options, bridge, found["ips"])
            if other is not None:
                found["interfaces"].append(described(other))
        failpoint.hit("cni.bridge.configured")
        if options.ip_masq and found["ips"]:
            masquerading.masquerade(request, found["ips"])
    return found


def delete(request: Request) -> None:
    """Idempotent with anything missing, also the namespace."""
    port = ownership.host_name(request)
    steps = [lambda: delegate(request, "DEL"), lambda: remove(request), lambda: masquerading.unmasquerade(request)]
    if request.config.get("macspoofchk"):
        steps += [lambda: _release([port]), lambda: reference_rules().unguard(request.owner)]
    each(*steps)


def check(request: Request) -> None:
    options = Options(request)
    previous = check_addresses(request)
    port = ownership.port_name(request, previous, {options.name, options.vlan_interface})
    with netlink.Socket() as sock:
        bridge_device.check(Links(sock), options, port, previous)

    def look(link: Link) -> None:
        if options.mac_spoof_check and not reference_rules().is_guarded(request.owner):
            from cni_plugins.main import mac_spoofing  # here: few ask for it

            mac_spoofing.check(port, link.mac)

    check_container(request, previous, "veth", look, up=not options.container_stays_down)
    if options.ip_masq:
        masquerading.check(request, previous)


def gc(request: Request) -> None:
    """Ports, rules, masquerading and addresses of whoever is not in cni.dev/valid-attachments."""
    each(
        lambda: reference.remove_stale(request),
        lambda: delegate(request, "GC"),
        lambda: remove_stale(request),
        lambda: _release_gone(request),
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
    delegate(request, "STATUS")


def _complete(options: Options, found: dict[str, Any]) -> None:
    """Gateways that the IPAM plugin left open, and the default routes."""
    for ip in found["ips"]:
        if options.is_gateway:
            ip["gateway"] = gateway(ip)
        default = "::/0" if ":" in ip["address"] else "0.0.0.0/0"
        if options.is_default_gateway and not any(route["dst"] == default for route in found["routes"]):
            found["routes"].append({"dst": default, "gw": ip["gateway"]})


def _bring_up(ends: Ends, options: Options, near: Link, far: Link, found: dict[str, Any]) -> None:
    settings = _FIND_DUPLICATES if options.detects_duplicates else _SETTINGS
    configure(ends, far, found, settings, finds_duplicates=options.detects_duplicates)
    check_carrier(near)


def _guard(port: str, mac: str, ends: Ends) -> None:
    from cni_plugins.main import mac_spoofing

    ends.undo.callback(mac_spoofing.release, [port])
    mac_spoofing.guard(port, mac)


def _release(ports: list[str]) -> None:
    from cni_plugins.main import mac_spoofing

    mac_spoofing.release(ports)


def _release_gone(request: Request) -> None:
    """Rules for ports that are no more."""
    if request.config.get("macspoofchk") and request.valid_attachments() is not None:
        from cni_plugins.main import mac_spoofing

        with netlink.Socket() as sock:
            present = {link.name for link in Links(sock).all()}
        mac_spoofing.release([port for port in mac_spoofing.guarded() if port not in present])
