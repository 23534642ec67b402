"""The configuration of host-local, checked. Cold."""

from __future__ import annotations

import ipaddress
import os

from cni_plugins.ipam.host_local.address_key import address_to_key, key_to_text
from cni_plugins.ipam.host_local.ranges import range_sets
from cni_plugins.options import ipam_options
from runtime_core.errors import InvalidArgument, from_oserror

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cni_plugins.ipam.host_local.ranges import Range
    from runtime_core.cni.request import Request

_MOST_RESOLV_CONF = 64 * 1024


class Options:
    """`wanted` are the addresses asked for, as keys; `gateways` are never given out, whatever range they lie in."""

    __slots__ = ("data_directory", "dns", "gateways", "groups", "routes", "wanted")

    def __init__(self, request: Request) -> None:
        ipam = request.section("ipam")
        ipam_options.check_args(request, ("IP",))
        self.data_directory = data_directory(request)
        self.groups: list[list[Range]] = range_sets(ipam, request.section("runtimeConfig").get("ipRanges"))
        self.gateways = {address_range.gateway for group in self.groups for address_range in group}
        self.routes = ipam_options.parse_routes(ipam)
        self.dns = _resolv_conf(ipam_options.string_option(ipam, "resolvConf"))
        self.wanted = self._wanted(request)
        ipam_options.check_families(request, [group[0].network.version for group in self.groups], "ipam.ranges")

    def _wanted(self, request: Request) -> list[bytes]:
        found: list[bytes] = []
        for field, texts in ipam_options.requested_addresses(request):
            for text in texts:
                key = address_to_key(ipaddress.ip_address(ipam_options.parse_interface_address(text, field).ip))
                if not any(key in address_range for group in self.groups for address_range in group):
                    raise InvalidArgument(f"{field}: {key_to_text(key)} is in no range of network {request.network}")
                if key in self.gateways:
                    raise InvalidArgument(f"{field}: {key_to_text(key)} is a gateway")
                if key not in found:
                    found.append(key)
        return found


def data_directory(request: Request) -> str:
    """What DEL and GC need, too: no more of the configuration is read there."""
    return ipam_options.string_option(request.section("ipam"), "dataDir")


def _resolv_conf(path: str) -> dict[str, Any]:
    """The file ipam.resolvConf as a result's dns."""
    if not path:
        return {}
    if not os.path.isfile(path):
        raise InvalidArgument(f"ipam.resolvConf: {path!r} is not a file")
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read(_MOST_RESOLV_CONF).splitlines()
    except OSError as error:
        raise from_oserror(error, "ipam.resolvConf") from error
    found: dict[str, Any] = {}
    for line in lines:
        words = line.split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver":
            found.setdefault("nameservers", []).append(words[1])
        elif words[0] == "domain":
            found["domain"] = words[1]
        elif words[0] == "search":
            found.setdefault("search", []).extend(words[1:])
        elif words[0] == "options":
            found.setdefault("options", []).extend(words[1:])
    return found
