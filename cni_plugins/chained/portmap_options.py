"""The configuration of portmap, checked; each error names the field. Cold."""

from __future__ import annotations

import ipaddress

from cni_plugins.chained.container import previous_result
from cni_plugins.chained.packet_filters import is_iptables_condition
from runtime_core.errors import InvalidArgument
from runtime_core.interfaces.packet_filter import PortMap, PortOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime_core.cni.request import Request

_PROTOCOLS = ("tcp", "udp", "sctp")
_MOST_PORTS = 65535
_MARK_BIT = 13


def parse_options(request: Request) -> PortOptions:
    """The driver's options from the configuration; InvalidArgument names the field."""
    chain: str = request.option("externalSetMarkChain", str, "")
    bit = request.config.get("markMasqBit")
    if chain and bit is not None:
        raise InvalidArgument("markMasqBit: cannot be set together with externalSetMarkChain")
    bit = _number(_MARK_BIT if bit is None else bit, "markMasqBit", 0, 31)
    snat = request.config.get("snat")
    if snat is not None and not isinstance(snat, bool):
        raise InvalidArgument(f"snat: {snat!r} is not a bool")
    return PortOptions(
        is_masquerading=snat is not False,
        masquerades_all=request.option("masqAll", bool, False),
        mark_bit=bit,
        mark_chain=chain,
        conditions_v4=_words(request, "conditionsV4"),
        conditions_v6=_words(request, "conditionsV6"),
    )


def parse_ports(request: Request) -> list[PortMap]:
    """Of runtimeConfig.portMappings; those with hostPort 0 are none."""
    field = "runtimeConfig.portMappings"
    entries = request.section("runtimeConfig").get("portMappings") or []
    if not isinstance(entries, list):
        raise InvalidArgument(f"{field}: {entries!r} is not a list")
    found: dict[tuple[str, int, str], PortMap] = {}
    for index, entry in enumerate(entries):
        port = _port(entry, f"{field}[{index}]")
        if port is None:
            continue
        if found.setdefault(port.key, port) != port:
            raise InvalidArgument(f"{field}[{index}]: {port.protocol} port {port.host_port} is mapped twice")
    return list(found.values())


def needs_iptables(request: Request) -> bool:
    """An option is there that only iptables has."""
    words = (request.config.get("conditionsV4"), request.config.get("conditionsV6"))
    return bool(request.config.get("externalSetMarkChain")) or any(is_iptables_condition(condition) for condition in words)


def pod_addresses(request: Request) -> list[str]:
    """The first IPv4 and the first IPv6 address of prevResult, with length, that the container has on this interface."""
    previous = previous_result(request)
    found: dict[int, str] = {}
    for ip in previous["ips"]:
        index, interfaces = ip.get("interface"), previous["interfaces"]
        is_known = isinstance(index, int) and 0 <= index < len(interfaces)
        if is_known and (interfaces[index].get("name") != request.interface or not interfaces[index].get("sandbox")):
            continue
        found.setdefault(6 if ":" in ip["address"] else 4, ip["address"])
    return list(found.values())


def _port(entry: Any, field: str) -> PortMap | None:
    if not isinstance(entry, dict):
        raise InvalidArgument(f"{field}: {entry!r} is not an object")
    host_port = _number(entry.get("hostPort", 0), f"{field}.hostPort", 0, _MOST_PORTS)
    if host_port == 0:
        return None
    container_port = _number(entry.get("containerPort"), f"{field}.containerPort", 1, _MOST_PORTS)
    protocol = entry.get("protocol") or "tcp"
    if not isinstance(protocol, str) or protocol.lower() not in _PROTOCOLS:
        raise InvalidArgument(f"{field}.protocol: {protocol!r} is not one of {', '.join(_PROTOCOLS)}")
    return PortMap(protocol.lower(), host_port, container_port, _address(entry.get("hostIP") or "", f"{field}.hostIP"))


def _address(text: Any, field: str) -> str:
    if text == "":
        return ""
    try:
        if isinstance(text, str) and "%" not in text:
            ip = ipaddress.ip_address(text)
            mapped = ip.ipv4_mapped if ip.version == 6 else None
            return str(mapped or ip)
    except ValueError:
        pass
    raise InvalidArgument(f"{field}: {text!r} is not an address")


def _number(value: Any, field: str, first: int, last: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not first <= value <= last:
        raise InvalidArgument(f"{field}: {value!r} is not a number from {first} to {last}")
    return value


def _words(request: Request, key: str) -> list[str]:
    words = request.config.get(key) or []
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise InvalidArgument(f"{key}: {words!r} is not a list of text")
    for word in words:
        if any(ord(character) < 32 or character == "\\" for character in word):
            raise InvalidArgument(f"{key}: {word!r} has a character that no condition needs")
    return [word for word in words if word]
