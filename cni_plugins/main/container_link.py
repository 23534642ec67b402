"""The container's interface: addresses allotted, configured, checked and taken away, the same for all plugins. Cold."""

from __future__ import annotations

import ipaddress
import os
from contextlib import ExitStack

from cni_plugins.main import ownership
from cni_plugins.main.options import interface_name
from runtime_core.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, TrivetError, from_oserror
from runtime_core.kernel import netlink
from runtime_core.network.link_messages import address_message, route_message
from runtime_core.network.links import Links, up_message
from runtime_core.network.namespace import entered, is_own, open_namespace
from runtime_core.network.settle import AddressEvents
from runtime_core.network.sysctl import write_sysctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Any

    from runtime_core.cni.request import Request
    from runtime_core.kernel.netlink import Message
    from runtime_core.network.links import Link

_ROUTE_KEYS = ("mtu", "advmss", "priority", "table", "scope")


class Ends:
    """Both sides of an attachment while it is made. Left by an error, it undoes what was registered, newest first."""

    __slots__ = ("_closing", "host", "inside", "namespace", "undo")

    def __init__(self, request: Request) -> None:
        interface_name(request.interface, "CNI_IFNAME")
        self.undo = ExitStack()
        with ExitStack() as closing:
            self.namespace = open_namespace(request.netns)
            closing.callback(os.close, self.namespace)
            if is_own(self.namespace):
                raise InvalidArgument(f"CNI_NETNS: {request.netns!r} is the network namespace of the node itself")
            self.host = Links(closing.enter_context(netlink.Socket()))
            with entered(self.namespace):
                self.inside = Links(closing.enter_context(netlink.Socket()))
            if self.inside.find(request.interface) is not None:  # nothing is taken yet: it may be this very attachment's
                raise AlreadyExists(f"CNI_IFNAME: the container has an interface {request.interface} already")
            self._closing = closing.pop_all()

    def __enter__(self) -> Ends:
        return self

    def __exit__(self, _kind: type[BaseException] | None, error: BaseException | None, _at: TracebackType | None) -> None:
        with self._closing:
            if error is None:
                self.undo.pop_all()
                return
            try:
                self.undo.close()
            except (TrivetError, OSError) as second:
                error.add_note(f"undoing it failed too: {second}")


def allot(request: Request, undo: ExitStack, *, is_needed: bool = False) -> dict[str, Any]:
    """Addresses and routes from the IPAM plugin; without one the container is connected by its link alone."""
    if not request.section("ipam"):
        if is_needed:
            raise InvalidArgument(f"ipam: {request.config.get('type')} connects nothing without addresses")
        return {}
    undo.callback(request.ipam, "DEL")
    allotted = request.ipam("ADD")
    if not allotted["ips"]:
        raise FailedPrecondition(f"ipam.type: {request.section('ipam')['type']} gave no address")
    return allotted


def result(request: Request, interfaces: list[dict[str, Any]], allotted: dict[str, Any]) -> dict[str, Any]:
    """Of an ADD; the addresses are those of the last of `interfaces`."""
    return {
        "interfaces": interfaces,
        "ips": [{**ip, "interface": len(interfaces) - 1} for ip in allotted.get("ips") or []],
        "routes": list(allotted.get("routes") or []),
        "dns": request.section("dns") or allotted.get("dns") or {},
    }


def described(link: Link, sandbox: str = "") -> dict[str, Any]:
    """A link as results list it."""
    return {"name": link.name, "mac": link.mac, "mtu": link.mtu, **({"sandbox": sandbox} if sandbox else {})}


def configure(
    ends: Ends,
    link: Link,
    found: dict[str, Any],
    settings: tuple[tuple[str, str, str], ...] = (),
    *,
    prefix_routes: bool = True,
    routes: Sequence[Message] = (),
    finds_duplicates: bool = False,
) -> None:
    """Up, with the addresses and routes of the result `found`, and ready to be asked for them.

    `settings`: (ipv4 or ipv6, key, value) of sysctls of an interface with addresses; `routes` go before those of `found`.
    `finds_duplicates`: IPv6 addresses that another node of the link has are an error, which takes a second or two."""
    addresses = [ip["address"] for ip in found["ips"]]
    has_v6 = any(":" in address for address in addresses)
    first = [up_message(link.index)]
    first += [address_message(link.index, one, says_when_ready=True, prefix_route=prefix_routes) for one in addresses]
    then = [*routes, *_route_messages(link.index, found)]
    with ExitStack() as closing:
        if addresses:
            with entered(ends.namespace):
                _set(link.name, settings, has_v6)
                if has_v6:
                    events = closing.enter_context(AddressEvents())
                    if not finds_duplicates:  # the addresses are ours alone: IPAM says so
                        before = write_sysctl(f"ipv6/conf/{link.name}/accept_dad", "0")
                        closing.callback(_restore, ends.namespace, f"ipv6/conf/{link.name}/accept_dad", before)
        try:
            ends.inside.send(*first, *([] if has_v6 else then))
            if has_v6:
                # Only then does the kernel answer to them: a neighbour that asked before would ask again a second later.
                events.wait_settled(ends.inside, link.index)
                ends.inside.send(*then)
        except OSError as error:
            raise from_oserror(error, f"configuring {link.name} of the container") from error


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
        with entered(namespace):
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


def remove_inside(request: Request, *kinds: str) -> None:
    """The container's interface goes, if it is of one of `kinds` and no other attachment's; whatever is missing is well."""
    if not request.netns:
        return
    try:
        namespace = open_namespace(request.netns)
    except NotFound:
        return
    try:
        if is_own(namespace):
            return
        with entered(namespace), netlink.Socket() as sock:
            links = Links(sock)
            link = links.find(request.interface)
            if link is not None and link.kind in kinds and not ownership.is_another(link.alias, request):
                links.remove_at(link.index)
    finally:
        os.close(namespace)


def each(*steps: Callable[[], object]) -> None:
    """All of `steps`, whichever of them fail; then the first failure is raised."""
    failure: TrivetError | OSError | None = None
    for step in steps:
        try:
            step()
        except (TrivetError, OSError) as error:
            failure = failure or error
    if failure is not None:
        raise failure


def delegate(request: Request, verb: str) -> None:
    """To the IPAM plugin, where one is configured."""
    if request.section("ipam"):
        request.ipam(verb)


def gateway(ip: dict[str, Any]) -> str:
    """Of an address: what IPAM says, otherwise the first of its network."""
    if ip.get("gateway"):
        return str(ip["gateway"])
    interface = ipaddress.ip_interface(ip["address"])
    first = interface.network.network_address + 1
    if first not in interface.network or first == interface.ip:
        raise InvalidArgument(f"ipam: {ip['address']} comes without a gateway, and its network leaves no address for one")
    return str(first)


def _restore(namespace: int, path: str, value: str) -> None:
    if value not in ("", "0"):
        with entered(namespace):
            write_sysctl(path, value)


def _set(name: str, settings: tuple[tuple[str, str, str], ...], has_v6: bool) -> None:
    if has_v6:
        write_sysctl("ipv6/conf/lo/disable_ipv6", "0")
        write_sysctl(f"ipv6/conf/{name}/disable_ipv6", "0")
        write_sysctl(f"ipv6/conf/{name}/keep_addr_on_down", "1")
    for family, key, value in settings:
        write_sysctl(f"{family}/conf/{name}/{key}", value)


def _route_messages(index: int, found: dict[str, Any]) -> list[Message]:
    gateways = _gateways(found)
    messages = []
    for number, route in enumerate(found["routes"]):
        more = {key: route[key] for key in _ROUTE_KEYS if route.get(key) is not None}
        for key, value in more.items():
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 32:
                raise InvalidArgument(f"routes[{number}].{key}: {value!r} is not a number")
        by = route.get("gw") or ("" if more.get("scope") else gateways.get(":" in route["dst"], ""))
        messages.append(route_message(index, route["dst"], by, **more))
    return messages


def _gateways(found: dict[str, Any]) -> dict[bool, str]:
    """Is IPv6 → gateway of the first such address: it is that of a route which names none."""
    gateways: dict[bool, str] = {}
    for ip in found["ips"]:
        if ip.get("gateway"):
            gateways.setdefault(":" in ip["address"], ip["gateway"])
    return gateways


def _check_mac(request: Request, previous: dict[str, Any], link: Link) -> None:
    listed = [one for one in previous["interfaces"] if one.get("name") == link.name and one.get("sandbox")]
    for one in listed:
        if one["sandbox"] != request.netns:
            raise InvalidArgument(f"prevResult: {link.name} is in {one['sandbox']}, not in CNI_NETNS {request.netns}")
        if one.get("mac") and one["mac"] != link.mac:
            raise FailedPrecondition(f"{link.name} of the container has the address {link.mac}, not {one['mac']}")


def _check_configured(request: Request, previous: dict[str, Any], present: set[str], routes: set[tuple[str, str]]) -> None:
    ours = [ip for ip in previous["ips"] if _is_ours(request, previous, ip)]
    lacking = {str(ipaddress.ip_interface(ip["address"])) for ip in ours} - present
    if lacking:
        raise FailedPrecondition(f"{request.interface} of the container lacks {', '.join(sorted(lacking))}")
    gateways = _gateways(previous)
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
