"""The container's interface: its addresses, configuration and removal, the same for all plugins. Cold."""

from __future__ import annotations

import ipaddress
import os
from contextlib import ExitStack

from cni_plugins.links import ownership
from cni_plugins.options.link_options import InvalidEnvironment, is_interface_name
from runtime_core.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, TrivetError
from runtime_core.kernel import netlink
from runtime_core.network.carrier import has_carrier
from runtime_core.network.duplicate_detection import AddressEvents
from runtime_core.network.kernel_errors import check_mtu, describe_error
from runtime_core.network.link_messages import address_message, route_message
from runtime_core.network.links import LONGEST_NAME, Links, up_message
from runtime_core.network.namespace import in_namespace, is_own, open_namespace
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


class InterfaceExists(AlreadyExists):
    """A parameter of the call is wrong, as in options.InvalidEnvironment."""

    cni_code = 4


class AttachmentSetup:
    """An ADD under way: links of the host and of the container, and what to undo, newest first, when it fails."""

    __slots__ = ("_closing", "container", "host", "namespace", "undo")

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
            with in_namespace(self.namespace):
                self.container = Links(closing.enter_context(netlink.Socket()))
            if self.container.find(request.interface) is not None:  # nothing is acquired yet
                raise InterfaceExists(f"CNI_IFNAME: the container has an interface {request.interface} already")
            self._closing = closing.pop_all()

    def __enter__(self) -> AttachmentSetup:
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


def allocate_addresses(request: Request, undo: ExitStack, *, is_needed: bool = False) -> dict[str, Any]:
    """Addresses and routes from the IPAM plugin, {} without one; released again when the ADD fails."""
    if not request.section("ipam"):
        if is_needed:
            raise InvalidArgument(f"ipam: {request.config.get('type')} connects nothing without addresses")
        return {}
    undo.callback(request.ipam, "DEL")
    addresses = request.ipam("ADD")
    if not addresses["ips"]:
        raise FailedPrecondition(f"ipam.type: {request.section('ipam')['type']} gave no address")
    return addresses


def add_result(request: Request, interfaces: list[dict[str, Any]], addresses: dict[str, Any]) -> dict[str, Any]:
    """The result of an ADD; the addresses belong to the last of `interfaces`."""
    return {
        "interfaces": interfaces,
        "ips": [{**ip, "interface": len(interfaces) - 1} for ip in addresses.get("ips") or []],
        "routes": list(addresses.get("routes") or []),
        "dns": request.section("dns") or addresses.get("dns") or {},
    }


def describe_interface(link: Link, sandbox: str = "") -> dict[str, Any]:
    """A link as an entry of `interfaces` in a CNI result."""
    return {"name": link.name, "mac": link.mac, "mtu": link.mtu, **({"sandbox": sandbox} if sandbox else {})}


def configure(
    setup: AttachmentSetup,
    link: Link,
    result: dict[str, Any],
    settings: tuple[tuple[str, str, str], ...] = (),
    *,
    prefix_routes: bool = True,
    routes: Sequence[Message] = (),
    detects_duplicates: bool = False,
) -> None:
    """Set the link up with the addresses and routes of `result`; returns when it answers for them.

    `settings`: sysctls (ipv4 or ipv6, key, value) of an interface with addresses; `routes` are added before those of `result`.
    `detects_duplicates`: wait for duplicate address detection, one or two seconds; AlreadyExists for a duplicate."""
    addresses = [ip["address"] for ip in result["ips"]]
    check_mtu(link.name, link.mtu, addresses)
    first = [up_message(link.index)]
    first += [address_message(link.index, address, follows_accept_dad=True, prefix_route=prefix_routes) for address in addresses]
    later = [*routes, *_route_messages(link.index, result)]
    try:
        if any(":" in address for address in addresses):
            _configure_ipv6(setup, link, settings, first, detects_duplicates)
            setup.container.send(*later)
            return
        if addresses and settings:
            with in_namespace(setup.namespace):
                _write_sysctls(link.name, settings)
        setup.container.send(*first, *later)
    except OSError as error:
        raise describe_error(error, f"configuring {link.name} of the container") from error


def remove_container_link(request: Request, *kinds: str) -> None:
    """Remove the container's interface if it is of one of `kinds` and of this attachment. Idempotent."""

    def remove(links: Links) -> None:
        link = links.find(request.interface)
        if link is not None and link.kind in kinds and not ownership.belongs_to_another(link.alias, request):
            links.remove_by_index(link.index)

    run_in_container(request, remove)


def run_in_container(request: Request, function: Callable[[Links], object]) -> None:
    """Call `function` in the container's network namespace; not when it is not named, is gone, or is the node's own."""
    if not request.netns:
        return
    try:
        namespace = open_namespace(request.netns)
    except NotFound:
        return
    try:
        if not is_own(namespace):
            with in_namespace(namespace), netlink.Socket() as sock:
                function(Links(sock))
    finally:
        os.close(namespace)


def run_all(*steps: Callable[[], object]) -> None:
    """Call all `steps`, even if some fail; then raise the first failure."""
    failure: TrivetError | OSError | None = None
    for step in steps:
        try:
            step()
        except (TrivetError, OSError) as error:
            failure = failure or error
    if failure is not None:
        raise failure


def delegate_ipam(request: Request, verb: str) -> None:
    """Call the IPAM plugin, if one is configured. At DEL and GC before the link is removed: dhcp releases the lease over it."""
    if request.section("ipam"):
        request.ipam(verb)


def gateway_of(ip: dict[str, Any]) -> str:
    """The gateway of an address: the one from IPAM, otherwise the first address of its network."""
    if ip.get("gateway"):
        return str(ip["gateway"])
    interface = ipaddress.ip_interface(ip["address"])
    first = interface.network.network_address + 1
    if first not in interface.network or first == interface.ip:
        raise InvalidArgument(f"ipam: {ip['address']} comes without a gateway, and its network leaves no address for one")
    return str(first)


def _configure_ipv6(
    setup: AttachmentSetup,
    link: Link,
    settings: tuple[tuple[str, str, str], ...],
    messages: list[Message],
    detects_duplicates: bool,
) -> None:
    """Wait for duplicate address detection: a neighbour that asks for an address before would ask again only a second later."""
    conf = f"ipv6/conf/{link.name}"
    with in_namespace(setup.namespace), AddressEvents() as events:
        write_sysctl("ipv6/conf/lo/disable_ipv6", "0")
        write_sysctl(f"{conf}/disable_ipv6", "0")
        write_sysctl(f"{conf}/keep_addr_on_down", "1")
        _write_sysctls(link.name, settings)
        before = "" if detects_duplicates else write_sysctl(f"{conf}/accept_dad", "0")  # they are ours alone: IPAM says so
        setup.container.send(*messages)
        has_carrier(link.name)  # with it the kernel makes the link's own address, for which the sysctl holds too
        events.wait_for_duplicate_detection(setup.container, link.index)
        if before:
            write_sysctl(f"{conf}/accept_dad", before)


def _write_sysctls(name: str, settings: tuple[tuple[str, str, str], ...]) -> None:
    for family, key, value in settings:
        write_sysctl(f"{family}/conf/{name}/{key}", value)


def _route_messages(index: int, result: dict[str, Any]) -> list[Message]:
    gateways = route_gateways(result)
    messages = []
    for number, route in enumerate(result["routes"]):
        more = {key: route[key] for key in _ROUTE_KEYS if route.get(key) is not None}
        for key, value in more.items():
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _ROUTE_KEYS[key]:
                raise InvalidArgument(f"routes[{number}].{key}: {value!r} is not a number")
        by = route.get("gw") or ("" if more.get("scope") else gateways.get(":" in route["dst"], ""))
        messages.append(route_message(index, route["dst"], by, **more))
    return messages


def route_gateways(result: dict[str, Any]) -> dict[bool, str]:
    """Whether IPv6 → the default for routes without a gateway: that of the first address of this version."""
    gateways: dict[bool, str] = {}
    for ip in result["ips"]:
        if ip.get("gateway"):
            gateways.setdefault(":" in ip["address"], ip["gateway"])
    return gateways
