"""The container's interface: addresses allotted, configured, checked and taken away, the same for all plugins. Cold."""

from __future__ import annotations

import ipaddress
import os
from contextlib import ExitStack

from cni_plugins.main import ownership
from cni_plugins.main.options import InvalidEnvironment, is_interface_name
from runtime_core.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, TrivetError
from runtime_core.kernel import netlink
from runtime_core.network.carrier import has_carrier
from runtime_core.network.link_messages import address_message, route_message
from runtime_core.network.links import LONGEST_NAME, Links, up_message
from runtime_core.network.namespace import entered, is_own, open_namespace
from runtime_core.network.refusals import check_mtu, refused
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

#: what a route may say besides, and the most of it
_ROUTE_KEYS = {**dict.fromkeys(("mtu", "advmss", "priority", "table"), (1 << 32) - 1), "scope": 255}


class InterfaceTaken(AlreadyExists):
    """A parameter of the call is wrong, as in options.InvalidEnvironment."""

    cni_code = 4


class Ends:
    """Both sides of an attachment while it is made. Left by an error, it undoes what was registered, newest first."""

    __slots__ = ("_closing", "host", "inside", "namespace", "undo")

    def __init__(self, request: Request) -> None:
        if not is_interface_name(request.interface):
            raise InvalidEnvironment(
                f"CNI_IFNAME: {request.interface!r} is not an interface name of at most {LONGEST_NAME} bytes"
            )
        self.undo = ExitStack()
        with ExitStack() as closing:
            self.namespace = open_namespace(request.netns)
            closing.callback(os.close, self.namespace)
            if is_own(self.namespace):
                raise InvalidEnvironment(f"CNI_NETNS: {request.netns!r} is the network namespace of the node itself")
            self.host = Links(closing.enter_context(netlink.Socket()))
            with entered(self.namespace):
                self.inside = Links(closing.enter_context(netlink.Socket()))
            if self.inside.find(request.interface) is not None:  # nothing is taken yet: it may be this very attachment's
                raise InterfaceTaken(f"CNI_IFNAME: the container has an interface {request.interface} already")
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
    check_mtu(link.name, link.mtu, addresses)
    first = [up_message(link.index)]
    first += [address_message(link.index, one, says_when_ready=True, prefix_route=prefix_routes) for one in addresses]
    then = [*routes, *_route_messages(link.index, found)]
    try:
        if any(":" in address for address in addresses):
            _set_ipv6(ends, link, settings, first, finds_duplicates)
            ends.inside.send(*then)
            return
        if addresses and settings:
            with entered(ends.namespace):
                _set(link.name, settings)
        ends.inside.send(*first, *then)
    except OSError as error:
        raise refused(error, f"configuring {link.name} of the container") from error


def remove_inside(request: Request, *kinds: str) -> None:
    """The container's interface goes, if it is of one of `kinds` and no other attachment's; whatever is missing is well."""

    def remove(links: Links) -> None:
        link = links.find(request.interface)
        if link is not None and link.kind in kinds and not ownership.is_another(link.alias, request):
            links.remove_at(link.index)

    where_there_is_a_container(request, remove)


def where_there_is_a_container(request: Request, work: Callable[[Links], object]) -> None:
    """`work` in its network namespace. Nothing where that is not named, is gone, or is the node's."""
    if not request.netns:
        return
    try:
        namespace = open_namespace(request.netns)
    except NotFound:
        return
    try:
        if not is_own(namespace):
            with entered(namespace), netlink.Socket() as sock:
                work(Links(sock))
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
    """To the IPAM plugin, where one is configured. At DEL and GC before the link goes: dhcp tells its server by it."""
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


def _set_ipv6(
    ends: Ends, link: Link, settings: tuple[tuple[str, str, str], ...], messages: list[Message], finds_duplicates: bool
) -> None:
    """Only settled addresses are answered for: a neighbour that asked before would ask again a second later."""
    conf = f"ipv6/conf/{link.name}"
    with entered(ends.namespace), AddressEvents() as events:
        write_sysctl("ipv6/conf/lo/disable_ipv6", "0")
        write_sysctl(f"{conf}/disable_ipv6", "0")
        write_sysctl(f"{conf}/keep_addr_on_down", "1")
        _set(link.name, settings)
        before = "" if finds_duplicates else write_sysctl(f"{conf}/accept_dad", "0")  # they are ours alone: IPAM says so
        ends.inside.send(*messages)
        has_carrier(link.name)  # with it the kernel makes the link's own address, for which the sysctl holds too
        events.wait_settled(ends.inside, link.index)
        if before:
            write_sysctl(f"{conf}/accept_dad", before)


def _set(name: str, settings: tuple[tuple[str, str, str], ...]) -> None:
    for family, key, value in settings:
        write_sysctl(f"{family}/conf/{name}/{key}", value)


def _route_messages(index: int, found: dict[str, Any]) -> list[Message]:
    gateways = route_gateways(found)
    messages = []
    for number, route in enumerate(found["routes"]):
        more = {key: route[key] for key in _ROUTE_KEYS if route.get(key) is not None}
        for key, value in more.items():
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _ROUTE_KEYS[key]:
                raise InvalidArgument(f"routes[{number}].{key}: {value!r} is not a number")
        by = route.get("gw") or ("" if more.get("scope") else gateways.get(":" in route["dst"], ""))
        messages.append(route_message(index, route["dst"], by, **more))
    return messages


def route_gateways(found: dict[str, Any]) -> dict[bool, str]:
    """Is IPv6 → gateway of the first such address: it is that of a route which names none."""
    gateways: dict[bool, str] = {}
    for ip in found["ips"]:
        if ip.get("gateway"):
            gateways.setdefault(":" in ip["address"], ip["gateway"])
    return gateways
