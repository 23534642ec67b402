"""The configuration of firewall, checked; each error names the field. Cold."""

from __future__ import annotations

from cni_plugins.chained import firewalld
from cni_plugins.chained.container import enter_container_if_present, previous_result
from cni_plugins.options.link_options import choice, is_interface_name
from runtime_core.errors import InvalidArgument
from runtime_core.interfaces.packet_filter import AdmissionOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime_core.cni.request import Request

_BACKENDS = ("", "nftables", "iptables", "firewalld")
_POLICIES = ("open", "same-bridge", "isolated")
DEFAULT_ZONE = "trusted"


class Options:
    """What is known without a result."""

    __slots__ = ("admin_chain", "is_by_firewalld", "is_chosen", "policy", "zone")

    def __init__(self, request: Request) -> None:
        backend = choice(request, "backend", _BACKENDS)
        self.zone: str = firewalld.check_zone(request.option("firewalldZone", str, "") or DEFAULT_ZONE)
        self.admin_chain: str = request.option("iptablesAdminChainName", str, "")
        self.policy: str = choice(request, "ingressPolicy", _POLICIES)
        if self.admin_chain and backend in ("nftables", "firewalld"):
            raise InvalidArgument(f"iptablesAdminChainName: backend {backend} has no chains of iptables")
        #: whether the configuration says which packet filter it wants
        self.is_chosen = bool(backend or self.admin_chain)
        self.is_by_firewalld = backend == "firewalld" or (not backend and not self.admin_chain and firewalld.is_running())

    def admission(self, request: Request) -> AdmissionOptions:
        """The driver's options for this attachment; InvalidArgument when prevResult does not fit the policy."""
        return AdmissionOptions(
            admin_chain=self.admin_chain,
            bridge="" if self.policy == "open" else _bridge(previous_result(request), self.policy),
            is_isolated=self.policy == "isolated",
        )


def container_addresses(request: Request) -> list[str]:
    """Of the container, with length."""
    result = previous_result(request)
    interfaces, found = result["interfaces"], []
    for ip in result["ips"]:
        index = ip.get("interface")
        is_known = isinstance(index, int) and 0 <= index < len(interfaces)
        if not is_known or interfaces[index].get("sandbox"):
            found.append(ip["address"])
    return found


def addresses_to_remove(request: Request) -> list[str]:
    """As `container_addresses`, without length; where there is no result, those that the container's interface still has."""
    if request.previous is not None:
        found = container_addresses(request)
    else:
        with enter_container_if_present(request) as there:
            found = there.links.addresses(there.link.index) if there is not None and there.link is not None else []
    return [address.partition("/")[0] for address in found]


def host_interface(request: Request) -> str:
    """The one of the node by which the container's packets come, as far as prevResult tells."""
    interfaces = (request.previous or {}).get("interfaces") or []
    names = [one.get("name") for one in interfaces if not one.get("sandbox")]
    return names[0] if names and isinstance(names[0], str) else ""


def _bridge(result: dict[str, Any], policy: str) -> str:
    name = result["interfaces"][0].get("name") if result["interfaces"] else None
    if not isinstance(name, str) or result["interfaces"][0].get("sandbox") or not is_interface_name(name):
        raise InvalidArgument(f"ingressPolicy: {policy} is for networks of plugin bridge: prevResult.interfaces[0] is no bridge")
    return name
