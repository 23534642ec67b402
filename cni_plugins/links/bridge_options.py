"""The configuration of the plugin bridge, checked. Cold."""

from __future__ import annotations

from cni_plugins.links import masquerading
from cni_plugins.options import link_options
from runtime_core.errors import InvalidArgument
from runtime_core.network.links import LONGEST_NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime_core.cni.request import Request

DEFAULT_NAME = "cni0"


class Options:
    """Every option of the plugin; InvalidArgument names the field."""

    __slots__ = (
        "container_stays_down", "detects_duplicates", "force_address", "hairpin", "ip_masq", "is_default_gateway", "is_gateway",
        "is_isolated", "keeps_default_vlan", "mac", "mac_spoof_check", "mtu", "name", "promiscuous", "trunk", "vlan",
    )  # fmt: skip

    def __init__(self, request: Request) -> None:
        def flag(key: str) -> bool:
            return bool(request.option(key, bool, False))

        self.name = link_options.interface_name(request.option("bridge", str, "") or DEFAULT_NAME, "bridge")
        self.mtu, self.mac = link_options.mtu(request), link_options.mac(request)
        self.vlan = link_options.vlan(request.config, "vlan", "vlan", first=0) or 0
        self.trunk = _trunk(request.option("vlanTrunk", list, []) or [])
        self.is_default_gateway = flag("isDefaultGateway")
        self.is_gateway = flag("isGateway") or self.is_default_gateway
        self.force_address = flag("forceAddress")
        self.ip_masq = masquerading.check_options(request)
        self.hairpin, self.promiscuous = flag("hairpinMode"), flag("promiscMode")
        if self.hairpin and self.promiscuous:
            raise InvalidArgument("promiscMode: cannot be set together with hairpinMode")
        self.keeps_default_vlan = flag("preserveDefaultVlan")
        self.mac_spoof_check = flag("macspoofchk")
        self.detects_duplicates = flag("enabledad")
        self.is_isolated = flag("portIsolation")
        self.container_stays_down = flag("disableContainerInterface")
        if self.container_stays_down and request.section("ipam"):
            raise InvalidArgument("disableContainerInterface: an interface that stays down can have no addresses of ipam")
        if self.vlan and self.is_gateway:
            self.vlan_interface  # noqa: B018  the name is checked before anything is made

    @property
    def vlan_interface(self) -> str:
        """The gateway of a VLAN is an interface of the host beside the bridge."""
        name = f"{self.name}.{self.vlan}"
        if len(name) > LONGEST_NAME:
            raise InvalidArgument(f"bridge: {name!r}, the gateway of vlan {self.vlan}, is longer than {LONGEST_NAME} bytes")
        return name

    @property
    def has_vlans(self) -> bool:
        return bool(self.vlan or self.trunk)


def _trunk(entries: list[Any]) -> set[int]:
    found: set[int] = set()
    for position, entry in enumerate(entries):
        field = f"vlanTrunk[{position}]"
        if not isinstance(entry, dict):
            raise InvalidArgument(f"{field} is not an object")
        first, last, one = (link_options.vlan(entry, key, f"{field}.{key}") for key in ("minID", "maxID", "id"))
        if (first is None) != (last is None):
            raise InvalidArgument(f"{field}: minID and maxID stand together")
        if first is not None and last is not None:
            if last < first:
                raise InvalidArgument(f"{field}.maxID: {last} is less than minID")
            found.update(range(first, last + 1))
        if one is not None:
            found.add(one)
    return found
