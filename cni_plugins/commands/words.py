"""A configuration list in words: what ADD would do, plugin by plugin; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from runtime_core.cni.conf import NetworkList

Config = dict[str, Any]


def sentences(network: NetworkList) -> Iterator[str]:
    """One line for the network, then some for each plugin."""
    count = len(network.plugins)
    yield f"network {network.name}, CNI {network.version}, {count} plugin{'s' if count != 1 else ''}"
    for switch, what in ((network.disable_check, "CHECK"), (network.disable_gc, "GC")):
        if switch:
            yield f"   {what} is never called"
    for number, plugin in enumerate(network.plugins):
        tell = _TELL.get(plugin["type"])
        said = list(tell(plugin)) if tell else ["a plugin that Trivet does not know does its work"]
        yield f"{number + 1}. {plugin['type']}: {said[0]}"
        for line in (*said[1:], *_common(plugin)):
            yield f"   {line}"


def _common(plugin: Config) -> Iterator[str]:
    if plugin["type"] not in ("portmap", "bandwidth", "firewall", "tuning", "sbr", "loopback"):
        yield from _ipam(plugin.get("ipam") or {}, plugin)
    wanted = [name for name, wants in (plugin.get("capabilities") or {}).items() if wants]
    if wanted:
        yield f"the runtime gives it {', '.join(wanted)}"


def _ipam(ipam: Config, plugin: Config) -> Iterator[str]:
    kind = ipam.get("type")
    if kind == "host-local":
        directory = f"{ipam.get('dataDir') or '/var/lib/cni/networks'}/{plugin.get('name', '<network>')}"
        for group in _ranges(ipam):
            yield f"an address is taken from {' or '.join(_range(one) for one in group)}"
        yield f"addresses are kept in {directory}"
    elif kind == "static":
        addresses = [str(one.get("address")) for one in ipam.get("addresses") or [] if isinstance(one, dict)]
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


def _ranges(ipam: Config) -> list[list[Config]]:
    groups = [[one for one in group if isinstance(one, dict)] for group in ipam.get("ranges") or [] if isinstance(group, list)]
    return ([[ipam]] if ipam.get("subnet") else []) + groups


def _range(one: Config) -> str:
    part = f" from {one['rangeStart']}" if one.get("rangeStart") else ""
    part += f" to {one['rangeEnd']}" if one.get("rangeEnd") else ""
    return f"{one.get('subnet')}{part}{' with gateway ' + str(one['gateway']) if one.get('gateway') else ''}"


def _bridge(plugin: Config) -> Iterator[str]:
    name = plugin.get("bridge") or "cni0"
    yield f"a veth pair leads from the container to bridge {name} of the host, which is made when it is missing"
    if plugin.get("isGateway") or plugin.get("isDefaultGateway"):
        yield f"{name} gets the gateway's address, and the host forwards"
    if plugin.get("isDefaultGateway"):
        yield "the container's default route leads there"
    yield from _masquerade(plugin)
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


def _ptp(plugin: Config) -> Iterator[str]:
    yield "a veth pair leads from the container to the host, which routes to its address"
    yield from _masquerade(plugin)


def _masquerade(plugin: Config) -> Iterator[str]:
    if plugin.get("ipMasq"):
        backend = plugin.get("ipMasqBackend")
        yield f"traffic that leaves the network has the host's address{f', by {backend}' if backend else ''}"


def _child(what: str) -> Callable[[Config], Iterator[str]]:
    def tell(plugin: Config) -> Iterator[str]:
        master = plugin.get("master") or "the interface of the default route"
        where = "container" if plugin.get("linkInContainer") else "host"
        mode = f" in mode {plugin['mode']}" if plugin.get("mode") else ""
        tag = f" with tag {plugin.get('vlanId')}" if what == "VLAN" else ""
        yield f"a {what} interface{tag}{mode} on {master} of the {where} becomes the container's"

    return tell


def _host_device(plugin: Config) -> Iterator[str]:
    keys = ("device", "hwaddr", "kernelpath", "pciBusID")
    found = next((f"{key} {plugin[key]}" for key in keys if plugin.get(key)), "the device that the runtime names")
    yield f"the host's network device with {found} moves into the container, and back at DEL"


def _portmap(plugin: Config) -> Iterator[str]:
    backend = plugin.get("backend")
    yield f"ports of the node are forwarded to the container{f', by {backend}' if backend else ''}"
    if plugin.get("snat", True):
        yield "who asks from the node itself, or from the container, is masqueraded"


def _bandwidth(plugin: Config) -> Iterator[str]:
    rates = [f"{key} {plugin[key]}" for key in ("ingressRate", "egressRate") if plugin.get(key)]
    yield f"traffic is limited to {' and '.join(rates) or 'what the runtime asks for'}, in bits a second"


def _firewall(plugin: Config) -> Iterator[str]:
    yield f"traffic of the container is let through, by {plugin.get('backend') or 'what the host uses'}"
    if plugin.get("ingressPolicy"):
        yield f"from other containers: {plugin['ingressPolicy']}"


def _tuning(plugin: Config) -> Iterator[str]:
    names = sorted(plugin.get("sysctl") or {})
    kept = [key for key in ("mac", "mtu", "promisc", "allmulti", "txQLen") if plugin.get(key)]
    yield f"of the container's interface are set: {', '.join(names + kept) or 'nothing'}"


_TELL: dict[str, Callable[[Config], Iterator[str]]] = {
    "bridge": _bridge,
    "ptp": _ptp,
    "macvlan": _child("macvlan"),
    "ipvlan": _child("ipvlan"),
    "vlan": _child("VLAN"),
    "host-device": _host_device,
    "tap": lambda _plugin: iter(["a tap device is made in the container, for a virtual machine"]),
    "dummy": lambda _plugin: iter(["a dummy interface is made in the container"]),
    "loopback": lambda _plugin: iter(["lo of the container is set up"]),
    "portmap": _portmap,
    "bandwidth": _bandwidth,
    "firewall": _firewall,
    "tuning": _tuning,
    "sbr": lambda _plugin: iter(["what comes from the container's address leaves by its interface: a routing table of its own"]),
    "vrf": lambda plugin: iter([f"the interface joins VRF {plugin.get('vrfname')} of the container, made when it is missing"]),
}
