"""Describes what ADD of a configuration list would do, plugin by plugin; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from runtime_core.cni.conf import NetworkList

Config = dict[str, Any]


def describe_network(network: NetworkList) -> Iterator[str]:
    """One line for the network, then some for each plugin."""
    count = len(network.plugins)
    yield f"network {network.name}, CNI {network.version}, {count} plugin{'s' if count != 1 else ''}"
    for switch, what in ((network.disable_check, "CHECK"), (network.disable_gc, "GC")):
        if switch:
            yield f"   {what} is never called"
    for number, plugin in enumerate(network.plugins):
        tell = _DESCRIBERS.get(plugin["type"])
        said = list(tell(plugin)) if tell else ["a plugin that Trivet does not know does its work"]
        yield f"{number + 1}. {plugin['type']}: {said[0]}"
        for line in (*said[1:], *_describe_common(plugin)):
            yield f"   {line}"


def _describe_common(plugin: Config) -> Iterator[str]:
    if plugin["type"] not in ("portmap", "bandwidth", "firewall", "tuning", "sbr", "loopback"):
        yield from _describe_ipam(plugin.get("ipam") or {}, plugin)
    wanted = [name for name, wants in (plugin.get("capabilities") or {}).items() if wants]
    if wanted:
        yield f"the runtime gives it {', '.join(wanted)}"


def _describe_ipam(ipam: Config, plugin: Config) -> Iterator[str]:
    kind = ipam.get("type")
    if kind == "host-local":
        directory = f"{ipam.get('dataDir') or '/var/lib/cni/networks'}/{plugin.get('name', '<network>')}"
        for group in _range_groups(ipam):
            yield f"an address is taken from {' or '.join(_describe_range(entry) for entry in group)}"
        yield f"addresses are kept in {directory}"
    elif kind == "static":
        addresses = [str(entry.get("address")) for entry in ipam.get("addresses") or [] if isinstance(entry, dict)]
        yield f"the address is {', '.join(addresses) or 'what the runtime asks for'}"
    elif kind == "dhcp":
        yield f"the address comes from a DHCP server, by the daemon at {ipam.get('daemonSocketPath') or '/run/cni/dhcp.sock'}"
    elif kind:
        yield f"addresses come from the plugin {kind}"
    else:
        yield "no address is given: ipam is empty"
    for route in ipam.get("routes") or []:
        if isinstance(route, dict):
            yield f"a route to {route.get('dst')} by {route.get('gw') or 'the gateway'}"


def _range_groups(ipam: Config) -> list[list[Config]]:
    groups = [
        [entry for entry in group if isinstance(entry, dict)] for group in ipam.get("ranges") or [] if isinstance(group, list)
    ]
    return ([[ipam]] if ipam.get("subnet") else []) + groups


def _describe_range(entry: Config) -> str:
    part = f" from {entry['rangeStart']}" if entry.get("rangeStart") else ""
    part += f" to {entry['rangeEnd']}" if entry.get("rangeEnd") else ""
    return f"{entry.get('subnet')}{part}{' with gateway ' + str(entry['gateway']) if entry.get('gateway') else ''}"


def _describe_bridge(plugin: Config) -> Iterator[str]:
    name = plugin.get("bridge") or "cni0"
    yield f"a veth pair leads from the container to bridge {name} of the host, which is made when it is missing"
    if plugin.get("isGateway") or plugin.get("isDefaultGateway"):
        yield f"{name} gets the gateway's address, and the host forwards"
    if plugin.get("isDefaultGateway"):
        yield "the container's default route leads there"
    yield from _describe_masquerade(plugin)
    for key, text in (
        ("vlan", "frames of the container are in VLAN {}"),
        ("vlanTrunk", "the container sees the VLANs {}"),
        ("macspoofchk", "frames with another hardware address than the container's are dropped"),
        ("hairpinMode", "the container reaches itself by the bridge"),
        ("promiscMode", f"{name} takes frames for everybody"),
        ("portIsolation", "the container does not reach other isolated ones"),
        ("disableContainerInterface", "the container's interface stays down"),
        ("mtu", "the MTU is {}"),
    ):
        if plugin.get(key):
            yield text.format(plugin[key])


def _describe_ptp(plugin: Config) -> Iterator[str]:
    yield "a veth pair leads from the container to the host, which routes to its address"
    yield from _describe_masquerade(plugin)


def _describe_masquerade(plugin: Config) -> Iterator[str]:
    if plugin.get("ipMasq"):
        backend = plugin.get("ipMasqBackend")
        yield f"traffic that leaves the network has the host's address{f', by {backend}' if backend else ''}"


def _child_link_describer(what: str) -> Callable[[Config], Iterator[str]]:
    def tell(plugin: Config) -> Iterator[str]:
        master = plugin.get("master") or "the interface of the default route"
        where = "container" if plugin.get("linkInContainer") else "host"
        mode = f" in mode {plugin['mode']}" if plugin.get("mode") else ""
        tag = f" with tag {plugin.get('vlanId')}" if what == "VLAN" else ""
        yield f"a {what} interface{tag}{mode} on {master} of the {where} becomes the container's"

    return tell


def _describe_host_device(plugin: Config) -> Iterator[str]:
    keys = ("device", "hwaddr", "kernelpath", "pciBusID")
    found = next((f"{key} {plugin[key]}" for key in keys if plugin.get(key)), "the device that the runtime names")
    yield f"the host's network device with {found} moves into the container, and back at DEL"


def _describe_portmap(plugin: Config) -> Iterator[str]:
    backend = plugin.get("backend")
    yield f"ports of the node are forwarded to the container{f', by {backend}' if backend else ''}"
    if plugin.get("snat", True):
        yield "who asks from the node itself, or from the container, is masqueraded"


def _describe_bandwidth(plugin: Config) -> Iterator[str]:
    rates = [f"{key} {plugin[key]}" for key in ("ingressRate", "egressRate") if plugin.get(key)]
    yield f"traffic is limited to {' and '.join(rates) or 'what the runtime asks for'}, in bits a second"


def _describe_firewall(plugin: Config) -> Iterator[str]:
    yield f"traffic of the container is let through, by {plugin.get('backend') or 'what the host uses'}"
    if plugin.get("ingressPolicy"):
        yield f"from other containers: {plugin['ingressPolicy']}"


def _describe_tuning(plugin: Config) -> Iterator[str]:
    names = sorted(plugin.get("sysctl") or {})
    kept = [key for key in ("mac", "mtu", "promisc", "allmulti", "txQLen") if plugin.get(key)]
    yield f"of the container's interface are set: {', '.join(names + kept) or 'nothing'}"


_DESCRIBERS: dict[str, Callable[[Config], Iterator[str]]] = {
    "bridge": _describe_bridge,
    "ptp": _describe_ptp,
    "macvlan": _child_link_describer("macvlan"),
    "ipvlan": _child_link_describer("ipvlan"),
    "vlan": _child_link_describer("VLAN"),
    "host-device": _describe_host_device,
    "tap": lambda _plugin: iter(["a tap device is made in the container, for a virtual machine"]),
    "dummy": lambda _plugin: iter(["a dummy interface is made in the container"]),
    "loopback": lambda _plugin: iter(["lo of the container is set up"]),
    "portmap": _describe_portmap,
    "bandwidth": _describe_bandwidth,
    "firewall": _describe_firewall,
    "tuning": _describe_tuning,
    "sbr": lambda _plugin: iter(["what comes from the container's address leaves by its interface: a routing table of its own"]),
    "vrf": lambda plugin: iter([f"the interface joins VRF {plugin.get('vrfname')} of the container, made when it is missing"]),
}
