"""Options that several IPAM plugins have: arguments, addresses, routes, dns. Cold."""

from __future__ import annotations

from runtime_core.cni import addresses
from runtime_core.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from ipaddress import IPv4Interface, IPv6Interface
    from typing import Any

    from runtime_core.cni.request import Request

#: below it a result holds one address of each family (specification 0.3.0)
_SEVERAL_ADDRESSES = "0.3.0"
#: MAC belongs to the plugin that calls us; it comes along by the environment, whether we know it or not
_EVERYBODYS = ("IgnoreUnknown", "MAC")
_YES = ("1", "true", "True", "TRUE")
_ROUTE_NUMBERS = ("mtu", "advmss", "priority", "table", "scope")
_DNS_LISTS = ("nameservers", "search", "options")


class NotReady(InvalidArgument):
    """STATUS: an ADD would be refused (specification 1.1, section 5)."""

    code = 50


def check_args(request: Request, known: Iterable[str]) -> None:
    """InvalidArgument for a key of CNI_ARGS that nobody knows, unless the caller sets IgnoreUnknown."""
    if request.args.get("IgnoreUnknown") in _YES:
        return
    unknown = sorted(set(request.args) - {*known, *_EVERYBODYS})
    if unknown:
        raise InvalidArgument(f"CNI_ARGS: {', '.join(unknown)} is unknown here; IgnoreUnknown=1 lets it pass")


def requested_addresses(request: Request) -> list[tuple[str, list[str]]]:
    """(field, addresses) of each way to request addresses, in the reference plugins' order."""
    found = [("CNI_ARGS IP", [text.strip() for text in request.args.get("IP", "").split(",") if text.strip()])]
    arguments = request.section("args").get("cni") or {}
    if not isinstance(arguments, dict):
        raise InvalidArgument(f"args.cni: {arguments!r} is not an object")
    found.append(("args.cni.ips", string_list(arguments.get("ips"), "args.cni.ips")))
    found.append(("runtimeConfig.ips", string_list(request.section("runtimeConfig").get("ips"), "runtimeConfig.ips")))
    return found


def parse_interface_address(text: Any, field: str) -> IPv4Interface | IPv6Interface:
    """`text` with its prefix length, all of it where it says none."""
    return addresses.interface(text, field)


def check_families(request: Request, versions: list[int], field: str) -> None:
    """InvalidArgument where a result of the configuration's version could not hold so many addresses."""
    version = str(request.config.get("cniVersion", "0.1.0"))
    if version < _SEVERAL_ADDRESSES and len(set(versions)) < len(versions):
        raise InvalidArgument(f"{field}: cniVersion {version} has one address of each family")


def parse_routes(ipam: dict[str, Any]) -> list[dict[str, Any]]:
    """ipam.routes, checked; with mtu, advmss, priority, table and scope of specification 1.1."""
    listed = ipam.get("routes")
    if listed is None:
        return []
    if not isinstance(listed, list):
        raise InvalidArgument("ipam.routes is not a list")
    for number, route in enumerate(listed):
        field = f"ipam.routes[{number}]"
        if not isinstance(route, dict):
            raise InvalidArgument(f"{field} is not an object")
        parse_interface_address(route.get("dst"), f"{field}.dst")
        if route.get("gw"):
            addresses.address(route["gw"], f"{field}.gw")
        for key in _ROUTE_NUMBERS:
            if key in route and (
                not isinstance(route[key], int) or isinstance(route[key], bool) or not 0 <= route[key] < 1 << 32
            ):
                raise InvalidArgument(f"{field}.{key}: {route[key]!r} is not a number")
    return listed


def parse_dns(ipam: dict[str, Any]) -> dict[str, Any]:
    """ipam.dns, checked."""
    given = ipam.get("dns")
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise InvalidArgument("ipam.dns is not an object")
    for key in _DNS_LISTS:
        string_list(given.get(key), f"ipam.dns.{key}")
    if not isinstance(given.get("domain", ""), str):
        raise InvalidArgument(f"ipam.dns.domain: {given['domain']!r} is not a name")
    return given


def string_option(ipam: dict[str, Any], key: str) -> str:
    """The string ipam[key], "" when it is missing; InvalidArgument names it when it is something else."""
    value = ipam.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidArgument(f"ipam.{key}: {value!r} is not a string")
    return value


def string_list(value: Any, field: str) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise InvalidArgument(f"{field}: {value!r} is not a list of strings")
    return value
