"""CNI results in every version of the specification, converted both ways; pure. Cold.

Inside Trivet a result has the shape of 1.0.0 and later: {"interfaces", "ips", "routes", "dns"}.
"""

from __future__ import annotations

from runtime_core.cni import addresses
from runtime_core.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
_OLDEST_LISTED = "0.3.0"
_WITHOUT_IP_VERSION = "1.0.0"
_WITH_MTU = "1.1.0"
_MOST_ENTRIES = 1024
_WITHOUT_EMPTY_DNS = "1.0.0"
#: of interfaces, addresses and routes; what else they have is somebody's own
_TYPES: dict[str, type] = {
    "name": str, "mac": str, "sandbox": str, "socketPath": str, "pciID": str, "interface": int,
    "mtu": int, "advmss": int, "priority": int, "table": int, "scope": int,
}  # fmt: skip
_NEW_INTERFACE_KEYS = ("mtu", "socketPath", "pciID")


def export(result: dict[str, Any], version: str) -> dict[str, Any]:
    """`result` as a plugin of `version` prints it; InvalidArgument for a version that does not exist."""
    check_version(version)
    if version < _OLDEST_LISTED:
        return _oldest(result, version)
    ips = [dict(ip) for ip in result.get("ips") or []]
    if version < _WITHOUT_IP_VERSION:
        for ip in ips:
            ip["version"] = "6" if ":" in ip["address"] else "4"
    interfaces = [dict(interface) for interface in result.get("interfaces") or []]
    # What 1.1.0 says of routes is told to all: the plugins that follow look for such routes, and others pass over it.
    routes = [dict(route) for route in result.get("routes") or []]
    if version < _WITH_MTU:
        for interface in interfaces:
            for key in _NEW_INTERFACE_KEYS:
                interface.pop(key, None)
    found: dict[str, Any] = {"cniVersion": version}
    if version < _WITHOUT_EMPTY_DNS:
        found["dns"] = result.get("dns") or {}
    for key, value in (("interfaces", interfaces), ("ips", ips), ("routes", routes), ("dns", result.get("dns"))):
        if value:
            found[key] = value
    return found


def read(document: Any, field: str = "prevResult", version: str = "0.1.0") -> dict[str, Any]:
    """A result of any version as Trivet's own; InvalidArgument naming `field` when it is malformed.

    `version` is for a document that does not say its own."""
    if not isinstance(document, dict):
        raise InvalidArgument(f"{field} is not an object")
    version = document.get("cniVersion") or version
    check_version(version, f"{field}.cniVersion")
    found = _from_oldest(document, field) if version < _OLDEST_LISTED else _from_listed(document, field)
    for number, ip in enumerate(found["ips"]):
        addresses.interface(ip.get("address"), f"{field}.ips[{number}].address")
        if ip.get("gateway"):
            addresses.address(ip["gateway"], f"{field}.ips[{number}].gateway")
    for number, route in enumerate(found["routes"]):
        addresses.interface(route.get("dst"), f"{field}.routes[{number}].dst")
        if route.get("gw"):
            addresses.address(route["gw"], f"{field}.routes[{number}].gw")
    for key in ("interfaces", "ips", "routes"):
        for number, entry in enumerate(found[key]):
            _check_types(entry, f"{field}.{key}[{number}]")
    return found


def pod_addresses(result: dict[str, Any]) -> list[str]:
    """Addresses, without prefix length, of the container's interfaces; those of the host's are left out."""
    interfaces, found = result["interfaces"], []
    for ip in result["ips"]:
        index = ip.get("interface")
        is_known = isinstance(index, int) and 0 <= index < len(interfaces)
        if not is_known or interfaces[index].get("sandbox"):
            found.append(ip["address"].partition("/")[0])
    return found


def check_version(version: Any, field: str = "cniVersion") -> None:
    """InvalidArgument, naming `field`, unless the version is one of VERSIONS."""
    if version not in VERSIONS:
        raise InvalidArgument(f"{field}: {version!r} is not one of {', '.join(VERSIONS)}")


def _oldest(result: dict[str, Any], version: str) -> dict[str, Any]:
    found: dict[str, Any] = {"cniVersion": version, "dns": result.get("dns") or {}}
    for ip in result.get("ips") or []:
        is_v6 = ":" in ip["address"]
        routes = [r for r in result.get("routes") or [] if (":" in r["dst"]) == is_v6]
        entry: dict[str, Any] = {"ip": ip["address"]}
        if ip.get("gateway"):
            entry["gateway"] = ip["gateway"]
        if routes:
            entry["routes"] = [{k: v for k, v in route.items() if k in ("dst", "gw")} for route in routes]
        found.setdefault("ip6" if is_v6 else "ip4", entry)
    return found


def _from_oldest(document: dict[str, Any], field: str) -> dict[str, Any]:
    ips, routes = [], []
    for key in ("ip4", "ip6"):
        entry = document.get(key)
        if entry is None:
            continue
        if not isinstance(entry, dict):
            raise InvalidArgument(f"{field}.{key} is not an object")
        ips.append({"address": entry.get("ip"), **({"gateway": entry["gateway"]} if entry.get("gateway") else {})})
        routes += _objects(entry, "routes", f"{field}.{key}")
    return {"interfaces": [], "ips": ips, "routes": routes, "dns": _dns(document, field)}


def _from_listed(document: dict[str, Any], field: str) -> dict[str, Any]:
    ips = _objects(document, "ips", field)
    for ip in ips:
        ip.pop("version", None)
    return {
        "interfaces": _objects(document, "interfaces", field),
        "ips": ips,
        "routes": _objects(document, "routes", field),
        "dns": _dns(document, field),
    }


def _objects(document: dict[str, Any], key: str, field: str) -> list[dict[str, Any]]:
    entries = document.get(key) or []
    if not isinstance(entries, list) or len(entries) > _MOST_ENTRIES or not all(isinstance(e, dict) for e in entries):
        raise InvalidArgument(f"{field}.{key} is not a list of at most {_MOST_ENTRIES} objects")
    return [dict(entry) for entry in entries]


def _dns(document: dict[str, Any], field: str) -> dict[str, Any]:
    dns = document.get("dns") or {}
    if not isinstance(dns, dict):
        raise InvalidArgument(f"{field}.dns is not an object")
    return dns


def _check_types(entry: dict[str, Any], field: str) -> None:
    """Of what is said at all."""
    for key, value in entry.items():
        kind = _TYPES.get(key)
        if value is None or kind is None:
            continue
        if not isinstance(value, kind) or isinstance(value, bool):
            raise InvalidArgument(f"{field}.{key}: {value!r} is not {'a number' if kind is int else 'a string'}")
