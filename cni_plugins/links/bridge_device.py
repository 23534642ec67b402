"""The bridge, its gateway addresses and its ports. Cold."""

from __future__ import annotations

import errno
import hashlib
import ipaddress

from cni_plugins.links.bridge_options import Options
from runtime_core.errors import FailedPrecondition, NotFound
from runtime_core.network import bridge_vlans
from runtime_core.network.kernel_errors import check_mtu, describe_error
from runtime_core.network.link_messages import address_message, port_message, remove_address_message
from runtime_core.network.sysctl import refuse_router_advertisements, write_sysctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime_core.network.links import Link, Links

_VLAN_FILTERING, _HAIRPIN, _ISOLATED = 7, 4, 33
_COMPATIBLE_NATIVE_VLAN = 1


def ensure_bridge(links: Links, options: Options) -> Link:
    """The bridge, created where it is missing, and up; FailedPrecondition when the name belongs to another kind of link."""
    bridge = links.find(options.name)
    if bridge is None:
        try:
            links.add_bridge(options.name, mtu=options.mtu, vlan_filtering=options.has_vlans)
        except FileExistsError:
            pass  # another ADD was quicker
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP and options.has_vlans:
                raise FailedPrecondition(f"vlan: this kernel's bridges have no VLANs: {error}") from error
            raise describe_error(error, f"making bridge {options.name} with mtu {options.mtu or 'as usual'}") from error
        # Its address is made from a random one; until it is ready the node would ask for no neighbour of the first pod.
        write_sysctl(f"ipv6/conf/{options.name}/accept_dad", "0")
        bridge = links.find(options.name)
    if bridge is None:
        raise NotFound(f"bridge: {options.name} vanished")
    check_kind(bridge, options)
    refuse_router_advertisements(bridge.name)  # also where somebody else has made it
    if not bridge.is_up or (options.promiscuous and not bridge.is_promiscuous):
        links.set_up(bridge.index, promiscuous=options.promiscuous)
    return bridge


def check_kind(bridge: Link, options: Options) -> None:
    """FailedPrecondition when the link is no bridge, or lacks the VLANs that the options need."""
    if bridge.kind != "bridge":
        raise FailedPrecondition(f"bridge: {bridge.name} is a {bridge.kind or 'real device'}, not a bridge")
    if options.has_vlans and bridge.data.get(_VLAN_FILTERING, b"\0") == b"\0":
        # Turned on now, it would cut off what other ports of this bridge send with tags.
        raise FailedPrecondition(f"vlan: bridge {bridge.name} is there already, without vlan_filtering")


def configure_port(links: Links, port: Link, options: Options) -> None:
    """Hairpin, isolation and VLANs of a port that has just been made."""
    if options.hairpin or options.is_isolated:
        links.send(port_message(port.index, hairpin=options.hairpin, isolated=options.is_isolated))
    if options.has_vlans:
        _join_vlans(links, port, options.vlan, options.trunk, options.keeps_default_vlan)


def _join_vlans(links: Links, port: Link, native: int, trunk: set[int], keeps_default: bool) -> None:
    messages = []
    present = [] if keeps_default else list(bridge_vlans.vlans(links.socket, port.index))
    if present:
        messages.append(bridge_vlans.remove_vlans_message(port.index, present))
    if trunk:
        messages.append(bridge_vlans.trunk_message(port.index, trunk))
    messages.append(bridge_vlans.native_vlan_message(port.index, native or _COMPATIBLE_NATIVE_VLAN))
    try:
        links.send(*messages)
    except OSError as error:
        raise describe_error(error, f"vlan: putting {port.name} into its VLANs") from error


def add_gateway_addresses(links: Links, options: Options, bridge: Link, ips: list[dict[str, Any]]) -> Link | None:
    """Give the host the gateways' addresses and let it forward; the VLAN interface that gets them, None for the bridge."""
    gateway_link = _ensure_vlan_interface(links, options, bridge) if options.vlan and ips else bridge
    present = links.addresses(gateway_link.index)
    for wanted in gateway_addresses(ips):
        if wanted not in present:
            _set_gateway_address(links, options, gateway_link, wanted, present)
        write_sysctl("ipv6/conf/all/forwarding" if ":" in wanted else "ipv4/ip_forward", "1")
    return gateway_link if gateway_link is not bridge else None


def gateway_addresses(ips: list[dict[str, Any]]) -> list[str]:
    """Gateways with the prefix lengths of their addresses."""
    return [f"{ip['gateway']}/{ip['address'].rpartition('/')[2]}" for ip in ips if ip.get("gateway")]


def _set_gateway_address(links: Links, options: Options, gateway_link: Link, wanted: str, present: list[str]) -> None:
    """A conflicting address (any IPv4 one, an IPv6 one of the same network) is replaced only with forceAddress."""
    ours = ipaddress.ip_interface(wanted)
    for text in present:
        other = ipaddress.ip_interface(text)
        if other.version == ours.version and (ours.version == 4 or other.network.overlaps(ours.network)):
            if not options.force_address:
                raise FailedPrecondition(f"bridge {gateway_link.name} has {text}, not {wanted}, and forceAddress is off")
            try:
                links.send(remove_address_message(gateway_link.index, text))
            except OSError as error:
                if error.errno != errno.EADDRNOTAVAIL:  # another ADD has removed it
                    raise describe_error(error, f"forceAddress: removing {text} from {gateway_link.name}") from error
    try:
        links.send(address_message(gateway_link.index, wanted))
    except OSError as error:
        now = links.find_by_index(gateway_link.index)
        if now is not None:
            check_mtu(now.name, now.mtu, [wanted])
        raise describe_error(error, f"giving {gateway_link.name} the gateway's address {wanted}") from error


def _ensure_vlan_interface(links: Links, options: Options, bridge: Link) -> Link:
    """A veth pair on the host: one end is a port of the bridge in this VLAN, the other gets the gateway's addresses."""
    name = options.vlan_interface
    found = links.find(name)
    if found is None:
        port_name = "veth" + hashlib.sha256(name.encode()).hexdigest()[:11]
        try:
            links.add_veth(port_name, name, namespace=-1, master=bridge.index, mtu=bridge.mtu)
        except FileExistsError:
            pass  # another ADD was quicker
        except OSError as error:
            raise describe_error(error, f"making {name}, the gateway of vlan {options.vlan}") from error
        for interface in (name, port_name):
            write_sysctl(f"ipv6/conf/{interface}/accept_dad", "0")
        port, found = links.find(port_name), links.find(name)
        if port is None or found is None:
            raise NotFound(f"{name}, the gateway of vlan {options.vlan}, vanished")
        refuse_router_advertisements(port_name)
        _join_vlans(links, port, options.vlan, set(), options.keeps_default_vlan)
    refuse_router_advertisements(name)
    if not found.is_up:
        links.set_up(found.index)
    return found


def check_bridge(links: Links, options: Options, port_name: str, previous: dict[str, Any]) -> None:
    """Bridge, port, and the gateways' addresses."""
    bridge, port = links.find(options.name), links.find(port_name)
    if bridge is None or not bridge.is_up:
        raise NotFound(f"bridge {options.name} is missing or down")
    check_kind(bridge, options)
    if options.promiscuous and not bridge.is_promiscuous:
        raise FailedPrecondition(f"promiscMode: bridge {options.name} is not promiscuous")
    if port is None or port.master != bridge.index or not port.is_up:
        raise NotFound(f"veth {port_name} is not on bridge {options.name}, or down")
    _check_port(links, options, port)
    if options.is_gateway:
        gateway_link = links.find(options.vlan_interface) if options.vlan else bridge
        present = links.addresses(gateway_link.index) if gateway_link else []
        for wanted in gateway_addresses(previous["ips"]):
            if wanted not in present:
                raise FailedPrecondition(f"bridge {options.name} lacks the gateway's address {wanted}")


def _check_port(links: Links, options: Options, port: Link) -> None:
    values = port.port
    for key, number, wanted in (("hairpinMode", _HAIRPIN, options.hairpin), ("portIsolation", _ISOLATED, options.is_isolated)):
        if wanted and values.get(number, b"\0") == b"\0":
            raise FailedPrecondition(f"{key}: it is off at {port.name}")
    if options.has_vlans:
        present = bridge_vlans.vlans(links.socket, port.index)
        native = options.vlan or _COMPATIBLE_NATIVE_VLAN
        lacking = sorted((options.trunk | {native}) - set(present))
        if lacking or not present[native][0]:
            raise FailedPrecondition(f"vlan: {port.name} is not in {', '.join(map(str, lacking or [native]))}")
