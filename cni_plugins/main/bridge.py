"""CNI plugin bridge: a veth pair from the container to a bridge of the host.

Options: bridge, isGateway, isDefaultGateway, forceAddress, ipMasq, mtu, hairpinMode,
promiscMode, and runtimeConfig.mac. An option of the reference plugin that is not here yet is refused, not ignored.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
from contextlib import ExitStack

from runtime_core.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, from_oserror
from runtime_core.kernel import failpoint, netlink
from runtime_core.network.links import LONGEST_NAME, Link, Links
from runtime_core.network.namespace import entered, open_namespace
from runtime_core.network.packet_filter import packet_filter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime_core.cni.request import Request

_NOT_YET = ("vlan", "vlanTrunk", "macspoofchk", "portIsolation", "disableContainerInterface", "preserveDefaultVlan")


class Options:
    """The configuration, checked."""

    __slots__ = ("force_address", "hairpin", "ip_masq", "is_default_gateway", "is_gateway", "mac", "mtu", "name", "promiscuous")

    def __init__(self, request: Request) -> None:
        self.name: str = request.option("bridge", str, "cni0")
        if not 0 < len(self.name) <= LONGEST_NAME or "/" in self.name:
            raise InvalidArgument(f"bridge: {self.name!r} is not an interface name of at most {LONGEST_NAME} bytes")
        self.is_default_gateway: bool = request.option("isDefaultGateway", bool, False)
        self.is_gateway: bool = request.option("isGateway", bool, False) or self.is_default_gateway
        self.force_address: bool = request.option("forceAddress", bool, False)
        self.ip_masq: bool = request.option("ipMasq", bool, False)
        self.mtu: int = request.option("mtu", int, 0)
        if self.mtu < 0:
            raise InvalidArgument(f"mtu: {self.mtu} is negative")
        self.hairpin: bool = request.option("hairpinMode", bool, False)
        self.promiscuous: bool = request.option("promiscMode", bool, False)
        if self.hairpin and self.promiscuous:
            raise InvalidArgument("promiscMode: cannot be set together with hairpinMode")
        self.mac: str = request.section("runtimeConfig").get("mac") or request.args.get("MAC", "")
        for key in _NOT_YET:
            if request.config.get(key):
                raise InvalidArgument(f"{key}: this version of the bridge plugin does not have it")


def add(request: Request) -> dict[str, Any]:
    options = Options(request)
    _check_interface(request.interface)
    host = veth_name(request)
    with ExitStack() as closing, ExitStack() as undo:
        namespace = open_namespace(request.netns)
        closing.callback(os.close, namespace)
        links = Links(closing.enter_context(netlink.Socket()))
        with entered(namespace):
            inside = Links(closing.enter_context(netlink.Socket()))
        if inside.find(request.interface) is not None:  # nothing is taken yet: it may be this very attachment's
            raise AlreadyExists(f"CNI_IFNAME: the container has an interface {request.interface} already")
        bridge = _ensure_bridge(links, options)
        allotted = _allot(request, undo)
        failpoint.hit("cni.bridge.allotted")
        undo.callback(links.remove, host)
        _connect(links, request, options, host, bridge.index, namespace)
        near, far = links.find(host), inside.find(request.interface)
        if near is None or far is None:
            raise NotFound(f"veth {host} vanished while it was set up")
        if options.hairpin:
            links.set_hairpin(near.index)
        result = _result(request, options, bridge, near, far, allotted)
        _configure(links, inside, options, bridge, far, result)
        failpoint.hit("cni.bridge.configured")
        if options.ip_masq:
            addresses = [ip["address"] for ip in result["ips"]]
            packet_filter(request.packet_filter).masquerade(addresses, request.owner)
        undo.pop_all()
    return result


def delete(request: Request) -> None:
    """Idempotent with anything missing, also the namespace."""
    addresses = [ip["address"] for ip in (request.previous or {}).get("ips") or []]
    with netlink.Socket() as sock:
        Links(sock).remove(veth_name(request))
    if request.config.get("ipMasq"):
        packet_filter(request.packet_filter).unmasquerade(request.owner, addresses)
    if request.section("ipam"):
        request.ipam("DEL")


def check(request: Request) -> None:
    options = Options(request)
    if request.section("ipam"):
        request.ipam("CHECK")
    if request.previous is None:
        raise InvalidArgument("prevResult is missing")
    _check_host(request, options)
    _check_container(request, request.previous)
    if options.ip_masq:
        listed = packet_filter(request.packet_filter).masqueraded()
        lacking = {ip["address"].partition("/")[0] for ip in request.previous["ips"]} - {
            a for a, o in listed if o == request.owner
        }
        if lacking:
            raise FailedPrecondition(f"the masquerading of {', '.join(sorted(lacking))} is gone")


def _check_host(request: Request, options: Options) -> None:
    with netlink.Socket() as sock:
        links = Links(sock)
        bridge, near = links.find(options.name), links.find(veth_name(request))
        present = links.addresses(bridge.index) if bridge else []
    if bridge is None or not bridge.is_up:
        raise NotFound(f"bridge {options.name} is missing or down")
    if near is None or near.master != bridge.index or not near.is_up:
        raise NotFound(f"veth {veth_name(request)} is not on bridge {options.name}, or down")
    if options.is_gateway:
        for wanted in [_gateway(ip) for ip in (request.previous or {})["ips"] if ip.get("gateway")]:
            if wanted not in present:
                raise FailedPrecondition(f"bridge {options.name} lacks the gateway's address {wanted}")


def _check_container(request: Request, previous: dict[str, Any]) -> None:
    namespace = open_namespace(request.netns)
    try:
        with entered(namespace), netlink.Socket() as sock:
            links = Links(sock)
            far = links.find(request.interface)
            present = set(links.addresses(far.index)) if far else set()
            routes = links.routes(far.index) if far else set()
    finally:
        os.close(namespace)
    if far is None or not far.is_up:
        raise NotFound(f"{request.interface} of the container is missing or down")
    lacking = {str(ipaddress.ip_interface(ip["address"])) for ip in previous["ips"]} - present
    if lacking:
        raise FailedPrecondition(f"{request.interface} of the container lacks {', '.join(sorted(lacking))}")
    for destination, gateway in _routes(previous):
        wanted = str(ipaddress.ip_network(destination, strict=False)), str(ipaddress.ip_address(gateway)) if gateway else ""
        if wanted not in routes:
            raise FailedPrecondition(f"the container lacks the route to {destination} by {gateway or request.interface}")


def gc(request: Request) -> None:
    """Release masquerading and addresses of whoever is not in cni.dev/valid-attachments."""
    attachments = request.valid_attachments()
    if attachments is None:
        return
    valid = {f"{request.network} {container_id} {interface}" for container_id, interface in attachments}
    for address, owner in packet_filter(request.packet_filter).masqueraded():
        if owner.startswith(f"{request.network} ") and owner not in valid:
            packet_filter(request.packet_filter).unmasquerade(owner, [address])
    if request.section("ipam"):
        request.ipam("GC")


def status(request: Request) -> None:
    options = Options(request)
    if options.ip_masq:
        packet_filter(request.packet_filter).masqueraded()  # an error where the kernel lacks what it needs
    if request.section("ipam"):
        request.ipam("STATUS")


def veth_name(request: Request) -> str:
    """The host's end, the same for every call on this attachment, so that DEL needs nothing else."""
    return "veth" + hashlib.sha256(request.owner.encode()).hexdigest()[:11]


def _check_interface(name: str) -> None:
    if not 0 < len(name.encode()) <= LONGEST_NAME or "/" in name or name in (".", "..") or name.split() != [name]:
        raise InvalidArgument(f"CNI_IFNAME: {name!r} is not an interface name of at most {LONGEST_NAME} bytes")


def _allot(request: Request, undo: ExitStack) -> dict[str, Any]:
    """Addresses and routes from the IPAM plugin; without one the container is connected by its link alone."""
    if not request.section("ipam"):
        return {}
    undo.callback(request.ipam, "DEL")
    return request.ipam("ADD")


def _ensure_bridge(links: Links, options: Options) -> Link:
    bridge = links.find(options.name)
    if bridge is None:
        try:
            links.add_bridge(options.name, mtu=options.mtu)
        except FileExistsError:
            pass  # another ADD was quicker
        except OSError as error:
            raise from_oserror(error, f"making bridge {options.name}") from error
        _write_sysctl(f"net/ipv6/conf/{options.name}/accept_ra", "0")  # CVE-2020-10749
        bridge = links.find(options.name)
    if bridge is None:
        raise NotFound(f"bridge: {options.name} vanished")
    if not bridge.is_up or options.promiscuous:
        links.set_up(bridge.index, promiscuous=options.promiscuous)
    return bridge


def _connect(links: Links, request: Request, options: Options, host: str, bridge: int, namespace: int) -> None:
    links.remove(host)  # what an ADD that was killed left behind
    try:
        links.add_veth(host, request.interface, namespace=namespace, master=bridge, mtu=options.mtu, mac=options.mac)
    except OSError as error:
        raise from_oserror(error, f"making veth {host}") from error
    _write_sysctl(f"net/ipv6/conf/{host}/accept_ra", "0")


def _result(request: Request, options: Options, bridge: Link, near: Link, far: Link, allotted: dict[str, Any]) -> dict[str, Any]:
    ips = [{**ip, "interface": 2} for ip in allotted.get("ips") or []]
    for ip in ips:
        if options.is_gateway and not ip.get("gateway"):
            network = ipaddress.ip_interface(ip["address"]).network
            ip["gateway"] = str(network.network_address + 1)
    routes = list(allotted.get("routes") or [])
    if options.is_default_gateway:
        for ip in ips:
            default = "::/0" if ":" in ip["address"] else "0.0.0.0/0"
            if not any(route["dst"] == default for route in routes):
                routes.append({"dst": default, "gw": ip["gateway"]})
    return {
        "interfaces": [
            {"name": bridge.name, "mac": bridge.mac, "mtu": bridge.mtu},
            {"name": near.name, "mac": near.mac, "mtu": near.mtu},
            {"name": far.name, "mac": far.mac, "mtu": far.mtu, "sandbox": request.netns},
        ],
        "ips": ips,
        "routes": routes,
        "dns": request.section("dns") or allotted.get("dns") or {},
    }


def _configure(links: Links, inside: Links, options: Options, bridge: Link, far: Link, result: dict[str, Any]) -> None:
    try:
        inside.configure(far.index, [ip["address"] for ip in result["ips"]], _routes(result))
    except OSError as error:
        raise from_oserror(error, f"configuring {far.name} of the container") from error
    if options.is_gateway:
        _be_gateway(links, options, bridge, result["ips"])


def _routes(result: dict[str, Any]) -> list[tuple[str, str]]:
    """(destination, gateway): where a route names none, the gateway of the addresses of its kind."""
    gateways = {":" in ip["address"]: ip.get("gateway", "") for ip in result["ips"]}
    return [(route["dst"], route.get("gw") or gateways.get(":" in route["dst"], "")) for route in result["routes"]]


def _gateway(ip: dict[str, Any]) -> str:
    return f"{ip['gateway']}/{ipaddress.ip_interface(ip['address']).network.prefixlen}"


def _be_gateway(links: Links, options: Options, bridge: Link, ips: list[dict[str, Any]]) -> None:
    present = links.addresses(bridge.index)
    for ip in ips:
        wanted = _gateway(ip)
        if wanted not in present:
            same_family = [a for a in present if (":" in a) == (":" in wanted) and not a.startswith("fe80:")]
            if same_family and not options.force_address and ":" not in wanted:
                raise FailedPrecondition(f"bridge {bridge.name} has {same_family[0]}, not {wanted}, and forceAddress is off")
            links.configure(bridge.index, [wanted], [])
        _write_sysctl("net/ipv6/conf/all/forwarding" if ":" in wanted else "net/ipv4/ip_forward", "1")


def _write_sysctl(path: str, value: str) -> None:
    """Written only when it differs: a write costs more than a read, and may not be allowed."""
    full = f"/proc/sys/{path}"
    try:
        with open(full) as file:
            if file.read().strip() == value:
                return
        with open(full, "w") as file:
            file.write(value)
    except FileNotFoundError:
        return  # no IPv6 on this host
    except OSError as error:
        raise from_oserror(error, f"setting {path} to {value}") from error
