"""CNI plugin sbr: what a container sends from an address of this interface goes by this interface's routes.

Options: table, gateways, addSourceHints. Each address gets a rule and a table of its own, into which the routes of the
interface move; with `table`, which an earlier plugin has filled, rules alone are made.
"""

from __future__ import annotations

import fcntl
import ipaddress
from contextlib import ExitStack, contextmanager

from cni_plugins.chained import container
from cni_plugins.options.link_options import number
from runtime_core.cni import addresses
from runtime_core.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from runtime_core.network import rules
from runtime_core.network.kernel_errors import describe_error
from runtime_core.network.link_messages import route_message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from cni_plugins.chained.container import Container
    from runtime_core.cni.request import Request
    from runtime_core.kernel.netlink import Message
    from runtime_core.network.links import Link, Links
    from runtime_core.network.rules import Route

FIRST_TABLE = 100
_LAST_TABLE = (1 << 32) - 1
_RESERVED = {253, 254, 255}


class Options:
    """The configuration, checked."""

    __slots__ = ("gateways", "has_source_hints", "table")

    def __init__(self, request: Request) -> None:
        self.table = number(request.config, "table", "table", 1, _LAST_TABLE)
        self.gateways = _gateways(request)
        self.has_source_hints: bool = request.option("addSourceHints", bool, False)
        if self.table is not None and (self.gateways or self.has_source_hints):
            raise InvalidArgument("table: gateways and addSourceHints cannot be set together with it, no route is made then")

    def gateway(self, ip: dict[str, Any]) -> str:
        """The default gateway for the table of the address `ip`; "" when there is none."""
        by = ip.get("gateway")
        return self.gateways.get(":" in ip["address"]) or (str(ipaddress.ip_address(by)) if by else "")


def add(request: Request) -> dict[str, Any]:
    options = Options(request)
    previous = container.previous_result(request)
    ips = _addresses(request, previous)
    with container.enter_container(request) as found, _locked(found.namespace), ExitStack() as undo:
        link = container.find_interface(request, found)
        present = rules.rules(found.links.socket)
        _check_free(ips, present)
        if options.table is not None:
            _add_rules(found.links, {_source(ip): options.table for ip in ips}, undo)
        else:
            _route_by_source(found.links, link, options, ips, {rule.table for rule in present}, undo)
        undo.pop_all()
    return previous


def delete(request: Request) -> None:
    """Rules of the interface's addresses, and their tables' routes through it; all of it goes with the namespace."""
    table = request.config.get("table") if isinstance(request.config.get("table"), int) else None
    with container.enter_container_if_present(request) as found:
        if found is None:
            return
        with _locked(found.namespace):
            sources = _known_sources(request, found)
            ours = [rule for rule in rules.rules(found.links.socket) if rule.source in sources and _is_ours(rule.table, table)]
            for rule in ours:
                _send_ignoring_absent(found.links, rules.remove_rule_message(rule))
            if found.link is not None and table is None:
                tables = {rule.table for rule in ours}
                for route in rules.routes(found.links.socket):
                    if route.index == found.link.index and route.table in tables:
                        _send_ignoring_absent(found.links, route.delete_message())


def check(request: Request) -> None:
    options = Options(request)
    ips = _addresses(request, container.previous_result(request))
    with container.enter_container(request) as found:
        link = container.find_interface(request, found)
        tables = {rule.source: rule.table for rule in rules.rules(found.links.socket) if _is_ours(rule.table, options.table)}
        routes = [route for route in rules.routes(found.links.socket) if route.index == link.index]
    for ip in ips:
        table = tables.get(_source(ip))
        if table is None:
            raise FailedPrecondition(f"the container lacks the rule that chooses a table for {_source(ip)}")
        gateway = options.gateway(ip)
        if options.table is None and gateway and not _has_default(routes, table, gateway):
            raise FailedPrecondition(f"table {table} of the container lacks the default route by {gateway}")
        if options.has_source_hints and not _has_gateway_route(routes, ip):
            raise FailedPrecondition(f"the container lacks the route to the network of {ip['address']} with that source")


def gc(request: Request) -> None:
    """Nothing is kept outside of the container."""


def status(request: Request) -> None:
    """NotFound where the kernel has no policy routing."""
    Options(request)
    with container.scratch_namespace() as sock:
        try:
            sock.request(rules.rule_message("192.0.2.1", FIRST_TABLE))
        except OSError as error:
            raise NotFound(f"the kernel has no policy routing: {error.strerror}") from error


@contextmanager
def _locked(namespace: int) -> Iterator[None]:
    """One sbr at a time in a container, the reference set's included: tables are allotted by looking."""
    fcntl.flock(namespace, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(namespace, fcntl.LOCK_UN)


def _gateways(request: Request) -> dict[bool, str]:
    """Is IPv6 → gateway."""
    values = request.config.get("gateways") or []
    if not isinstance(values, list):
        raise InvalidArgument(f"gateways: {values!r} is not a list")
    found: dict[bool, str] = {}
    for index, value in enumerate(values):
        address = addresses.address(value, f"gateways[{index}]")
        if found.setdefault(address.version == 6, str(address)) != str(address) or len(found) != index + 1:
            raise InvalidArgument(f"gateways[{index}]: {value!r} is the second of IPv{address.version}")
    return found


def _addresses(request: Request, previous: dict[str, Any]) -> list[dict[str, Any]]:
    found = container.interface_addresses(request, previous)
    if not found:
        raise InvalidArgument(f"prevResult.ips: none is an address of {request.interface}")
    return found


def _source(ip: dict[str, Any]) -> str:
    return str(ipaddress.ip_interface(ip["address"]).ip)


def _check_free(ips: list[dict[str, Any]], present: list[rules.Rule]) -> None:
    sources = {rule.source for rule in present}
    for ip in ips:
        if _source(ip) in sources:
            raise AlreadyExists(f"prevResult.ips: the container has a rule for {_source(ip)} already")


def _route_by_source(
    links: Links, link: Link, options: Options, ips: list[dict[str, Any]], taken: set[int], undo: ExitStack
) -> None:
    listed = rules.routes(links.socket)
    tables: dict[str, int] = {}
    for ip in ips:
        tables[_source(ip)] = rules.free_table(taken | _RESERVED | {route.table for route in listed}, FIRST_TABLE)
        taken.add(tables[_source(ip)])
    ours = [r for r in listed if r.index == link.index and r.table == rules.MAIN_TABLE and r.is_unicast]
    undo.callback(_flush_tables, links, link, set(tables.values()))
    for ip in ips:
        table, by = tables[_source(ip)], options.gateway(ip)
        copied = [r for r in ours if _belongs(r, ip, ips) and not (by and _is_default(r) and r.gateway != by)]
        copied.sort(key=lambda route: bool(route.gateway))  # a gateway is reached by the routes without one
        messages = [route.replace_message(table) for route in copied]
        if by and not any(_is_default(route) and route.destination.version == (6 if ":" in by else 4) for route in copied):
            messages.append(route_message(link.index, "::/0" if ":" in by else "0.0.0.0/0", by, table=table))
        _send(links, f"table {table} of {ip['address']}", messages)
    _add_rules(links, tables, undo)
    undo.callback(_send, links, "the main table", [route.replace_message(rules.MAIN_TABLE) for route in ours])
    moved = [route for route in ours if route.destination.version == 4 or not route.destination.is_link_local]
    _send(links, "the main table", [route.delete_message() for route in moved])
    if options.has_source_hints:
        _send(links, "the main table", [_gateway_route(link, ip) for ip in ips])


def _belongs(route: Route, ip: dict[str, Any], ips: list[dict[str, Any]]) -> bool:
    """A route that names neither source nor gateway is of every address, of either family: the kernel's own to an IPv6
    network are. Others are of the address's network, or of none of the interface's."""
    network, end = ipaddress.ip_interface(ip["address"]).network, route.near_end
    if end is None or end in network:
        return True
    return end.version == network.version and not any(end in ipaddress.ip_interface(other["address"]).network for other in ips)


def _is_default(route: Route) -> bool:
    return bool(route.destination.prefixlen == 0)


def _gateway_route(link: Link, ip: dict[str, Any]) -> Message:
    interface = ipaddress.ip_interface(ip["address"])
    return route_message(link.index, str(interface.network), "", source=str(interface.ip))


def _add_rules(links: Links, tables: dict[str, int], undo: ExitStack) -> None:
    undo.callback(_remove_rules, links, tables)
    _send(links, "a rule by source", [rules.rule_message(source, table) for source, table in tables.items()])


def _remove_rules(links: Links, tables: dict[str, int]) -> None:
    for rule in rules.rules(links.socket):
        if tables.get(rule.source) == rule.table:
            _send_ignoring_absent(links, rules.remove_rule_message(rule))


def _flush_tables(links: Links, link: Link, tables: set[int]) -> None:
    for route in rules.routes(links.socket):
        if route.index == link.index and route.table in tables:
            _send_ignoring_absent(links, route.delete_message())


def _send(links: Links, what: str, messages: list[Message]) -> None:
    try:
        links.send(*messages)
    except OSError as error:
        raise describe_error(error, f"routing by source, {what}") from error


def _send_ignoring_absent(links: Links, message: Message) -> None:
    """A rule or route that is gone already is well."""
    try:
        links.send(message)
    except OSError as error:
        if error.errno not in (2, 3):  # ENOENT, ESRCH
            raise describe_error(error, "taking routes by source away") from error


def _known_sources(request: Request, found: Container) -> set[str]:
    ips = [ip["address"] for ip in container.interface_addresses(request, request.previous)] if request.previous else []
    if found.link is not None:
        ips += found.links.addresses(found.link.index)
    return {str(ipaddress.ip_interface(address).ip) for address in ips}


def _is_ours(table: int, configured: Any) -> bool:
    return table == configured if configured is not None else table >= FIRST_TABLE and table not in _RESERVED


def _has_default(routes: list[Route], table: int, gateway: str) -> bool:
    return any(r.table == table and _is_default(r) and r.gateway == gateway for r in routes)


def _has_gateway_route(routes: list[Route], ip: dict[str, Any]) -> bool:
    interface = ipaddress.ip_interface(ip["address"])
    return any(
        r.table == rules.MAIN_TABLE and r.destination == interface.network and r.near_end == interface.ip for r in routes
    )  # fmt: skip
