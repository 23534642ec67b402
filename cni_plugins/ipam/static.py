"""CNI plugin static: the addresses that the configuration, or the caller, says. Cold."""

from __future__ import annotations

import ipaddress

from cni_plugins.options import ipam_options
from runtime_core.cni import addresses
from runtime_core.errors import InvalidArgument, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ipaddress import IPv4Interface, IPv6Interface
    from typing import Any

    from runtime_core.cni.request import Request


def add(request: Request) -> dict[str, Any]:
    ipam = request.section("ipam")
    ips = []
    for address, gateway in _addresses(request):
        ips.append({"address": address.with_prefixlen, **({"gateway": gateway} if gateway else {})})
    return {"ips": ips, "routes": ipam_options.parse_routes(ipam), "dns": ipam_options.parse_dns(ipam)}


def delete(request: Request) -> None:
    """Nothing is kept."""


def check(request: Request) -> None:
    """prevResult has every address, with the gateway that belongs to it."""
    if request.previous is None:
        raise InvalidArgument("prevResult is missing")
    present = {ipaddress.ip_interface(ip["address"]).ip: ip.get("gateway", "") for ip in request.previous["ips"]}
    for address, gateway in _addresses(request):
        if address.ip not in present:
            raise NotFound(f"prevResult.ips: {address.ip} is missing")
        if gateway and present[address.ip] != gateway:
            raise NotFound(f"prevResult.ips: the gateway of {address.ip} is not {gateway}")


def gc(request: Request) -> None:
    """Nothing is kept."""


def status(request: Request) -> None:
    ipam = request.section("ipam")
    _addresses(request)
    ipam_options.parse_routes(ipam)
    ipam_options.parse_dns(ipam)


def _addresses(request: Request) -> list[tuple[IPv4Interface | IPv6Interface, str]]:
    """(address, gateway or ""). Those of CNI_ARGS, with its gateways, are added to the configuration's; args.cni and
    the capability "ips" stand in the place of all others."""
    ipam_options.check_args(request, ("IP", "GATEWAY"))
    (field, texts), *others = ipam_options.requested_addresses(request)
    added = [(_with_prefix(text, field), "") for text in texts]
    for text in filter(None, request.args.get("GATEWAY", "").split(",")):
        gateway = _gateway(text.strip(), "CNI_ARGS GATEWAY")
        added = [(address, gateway if ipaddress.ip_address(gateway) in address.network else had) for address, had in added]
    found = _configured(request.section("ipam")) + added
    for field, texts in others:
        if texts:
            found = [(_with_prefix(text, field), "") for text in texts]
    ipam_options.check_families(request, [address.version for address, _gateway in found], "ipam.addresses")
    return found


def _configured(ipam: dict[str, Any]) -> list[tuple[IPv4Interface | IPv6Interface, str]]:
    listed = ipam.get("addresses")
    if listed is None:
        return []
    if not isinstance(listed, list):
        raise InvalidArgument("ipam.addresses is not a list")
    found = []
    for number, entry in enumerate(listed):
        field = f"ipam.addresses[{number}]"
        if not isinstance(entry, dict):
            raise InvalidArgument(f"{field} is not an object")
        address = _with_prefix(entry.get("address"), f"{field}.address")
        gateway = _gateway(entry["gateway"], f"{field}.gateway") if entry.get("gateway") not in (None, "") else ""
        # It need not be in the subnet: a host may be reached by a gateway on its link alone.
        if gateway and ipaddress.ip_address(gateway).version != address.version:
            raise InvalidArgument(f"{field}.gateway: {gateway} is of another family than {address}")
        found.append((address, gateway))
    return found


def _with_prefix(text: Any, field: str) -> IPv4Interface | IPv6Interface:
    if isinstance(text, str) and "/" not in text:
        raise InvalidArgument(f"{field}: {text!r} lacks its prefix length")
    return ipam_options.parse_interface_address(text, field)


def _gateway(text: Any, field: str) -> str:
    return str(addresses.address(text, field))
