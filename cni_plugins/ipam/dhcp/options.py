"""Options of DHCP: what the configuration provides and requests, and what an answer makes of a CNI result; pure. Cold."""

from __future__ import annotations

import ipaddress

from cni_plugins.ipam.dhcp import packet
from runtime_core.errors import InvalidArgument
from runtime_core.kernel.decimal_number import parse_decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CODES = {
    "dhcp-client-identifier": packet.CLIENT_ID,
    "subnet-mask": packet.MASK,
    "routers": packet.ROUTER,
    "host-name": packet.HOST_NAME,
    "user-class": packet.USER_CLASS,
    "vendor-class-identifier": packet.VENDOR_CLASS,
}
_DEFAULT = (packet.ROUTER, packet.MASK)
#: what a client has to say itself
_OURS = (packet.OVERLOAD, packet.MESSAGE_TYPE, packet.SERVER, packet.REQUESTED_ADDRESS, packet.PARAMETERS)
_LONGEST = 255
_MOST_ROUTES = 256
_SCOPE_LINK = 253


def client_id(container_id: str, network: str, interface: str) -> bytes:
    """Type 0 and the attachment, as long as an option may be."""
    return b"\0" + f"{container_id}/{network}/{interface}".encode()[:254]


def message_options(ipam: dict[str, Any], args: dict[str, str]) -> dict[int, bytes]:
    """Options of every message, from ipam.provide and ipam.request; `args` are those of CNI_ARGS."""
    found: dict[int, bytes] = {}
    for number, entry in enumerate(_entries(ipam, "provide")):
        field = f"ipam.provide[{number}]"
        code = _code(entry.get("option"), f"{field}.option")
        if code in _OURS:
            raise InvalidArgument(f"{field}.option: {entry['option']!r} is not for the configuration to say")
        value = _text(entry, "value", field)
        from_arg = _text(entry, "fromArg", field)
        if from_arg in args:
            value = args[from_arg]
        if len(value.encode()) > _LONGEST:
            raise InvalidArgument(f"{field}: the value is longer than {_LONGEST} bytes")
        if value:
            found[code] = value.encode()
    requested = _requested(ipam)
    if requested:
        found[packet.PARAMETERS] = bytes(requested)
    return found


def cni_result(ack: packet.Message, ipam: dict[str, Any]) -> dict[str, Any]:
    """What the server gave, in the shape of a CNI result; Malformed where an address could not be set with it."""
    address = f"{ipaddress.IPv4Address(ack.your_address)}/{_prefix_length(ack)}"
    gateway = _routers(ack)[:1]
    routes = _routes(ack)
    if ipam.get("priority"):
        routes = [{**route, "priority": ipam["priority"]} for route in routes]
    ip = {"address": address, **({"gateway": gateway[0]} if gateway else {})}
    return {"ips": [ip], "routes": routes, "dns": _dns(ack, _requested(ipam))}


def priority(ipam: dict[str, Any]) -> int:
    value = ipam.get("priority", 0)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 32:
        raise InvalidArgument(f"ipam.priority: {value!r} is not a metric")
    return value


def seconds(ack: packet.Message, code: int) -> int | None:
    value = ack.options.get(code, b"")
    return int.from_bytes(value, "big") if len(value) == 4 else None


def _requested(ipam: dict[str, Any]) -> list[int]:
    codes, skips_default = [], False
    for number, entry in enumerate(_entries(ipam, "request")):
        skip = entry.get("skipDefault", False)
        if not isinstance(skip, bool):
            raise InvalidArgument(f"ipam.request[{number}].skipDefault: {skip!r} is not true or false")
        skips_default = skips_default or skip
        if entry.get("option"):
            codes.append(_code(entry["option"], f"ipam.request[{number}].option"))
    return list(dict.fromkeys(codes + ([] if skips_default else list(_DEFAULT))))


def _entries(ipam: dict[str, Any], key: str) -> list[dict[str, Any]]:
    listed = ipam.get(key)
    if listed is None:
        return []
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise InvalidArgument(f"ipam.{key} is not a list of objects")
    return listed


def _code(option: Any, field: str) -> int:
    if isinstance(option, str):
        if option in _CODES:
            return _CODES[option]
        code = parse_decimal(option, packet.END - 1)
        if code is not None and code > packet.PAD:
            return code
    raise InvalidArgument(f"{field}: {option!r} is neither a number from 1 to 254 nor one of {', '.join(sorted(_CODES))}")


def _text(entry: dict[str, Any], key: str, field: str) -> str:
    value = entry.get(key, "")
    if not isinstance(value, str):
        raise InvalidArgument(f"{field}.{key}: {value!r} is not a string")
    return value


def _prefix_length(ack: packet.Message) -> int:
    mask = ack.options.get(packet.MASK, b"")
    if len(mask) != 4:
        raise packet.Malformed("no subnet mask (option 1)")
    inverse = ~int.from_bytes(mask, "big") & 0xFFFFFFFF
    if inverse & (inverse + 1):
        raise packet.Malformed(f"subnet mask {ipaddress.IPv4Address(mask)} (option 1) has holes")
    return 32 - inverse.bit_length()


def _routers(ack: packet.Message) -> list[str]:
    listed = ack.options.get(packet.ROUTER, b"")
    return [str(ipaddress.IPv4Address(listed[at : at + 4])) for at in range(0, len(listed) - 3, 4)]


def _routes(ack: packet.Message) -> list[dict[str, Any]]:
    """RFC 3442: with classless routes, neither the classful ones nor the routers count."""
    if packet.CLASSLESS_ROUTES in ack.options:
        classless = _classless(ack.options[packet.CLASSLESS_ROUTES])
        if classless:
            return classless
    found: list[dict[str, Any]] = []
    listed = ack.options.get(packet.STATIC_ROUTES, b"")
    for at in range(0, min(len(listed), 8 * _MOST_ROUTES) - 7, 8):
        destination, gateway = listed[at : at + 4], listed[at + 4 : at + 8]
        found.append(_route(destination, _classful_prefix(destination), gateway))
    found += [{"dst": "0.0.0.0/0", "gw": gateway} for gateway in _routers(ack)[:1]]
    return found


def _classless(data: bytes) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    position = 0
    while position < len(data) and len(found) < _MOST_ROUTES:
        width = data[position]
        significant = (width + 7) // 8
        end = position + 1 + significant + 4
        if width > 32 or end > len(data):
            raise packet.Malformed("classless routes (option 121)")
        destination = data[position + 1 : position + 1 + significant].ljust(4, b"\0")
        found.append(_route(destination, width, data[end - 4 : end]))
        position = end
    return found


def _route(destination: bytes, width: int, gateway: bytes) -> dict[str, Any]:
    network = ipaddress.ip_network((destination, width), strict=False)
    if gateway == bytes(4):  # the destination is on the link
        return {"dst": str(network), "scope": _SCOPE_LINK}
    return {"dst": str(network), "gw": str(ipaddress.IPv4Address(gateway))}


def _classful_prefix(destination: bytes) -> int:
    return 8 if destination[0] < 128 else 16 if destination[0] < 192 else 24


def _dns(ack: packet.Message, requested: list[int]) -> dict[str, Any]:
    """Only what the configuration asked for: a server may send more."""
    found: dict[str, Any] = {}
    servers = ack.options.get(packet.NAME_SERVER, b"")
    if packet.NAME_SERVER in requested and len(servers) >= 4:
        found["nameservers"] = [str(ipaddress.IPv4Address(servers[at : at + 4])) for at in range(0, len(servers) - 3, 4)]
    domain = ack.options.get(packet.DOMAIN, b"").rstrip(b"\0").decode("ascii", "replace")
    if packet.DOMAIN in requested and domain.isascii() and domain.replace("-", "").replace(".", "").isalnum():
        found["domain"] = domain
    return found
