"""Admission of forwarded traffic by nftables.

    table ip trivet_admission
      set admit-pods { type ipv4_addr }
      chain admit-forward { filter, forward
        ip saddr @admit-pods accept; ip daddr @admit-pods ct state established,related accept }
      set isolation-bridges { type ifname }
      set isolation-inside, isolation-nowhere { type ifname . ifname }
      chain isolation-forward { filter, forward, earlier
        iifname . oifname @isolation-nowhere drop; iifname . oifname @isolation-inside return
        iifname @isolation-bridges oifname @isolation-bridges drop }

Parts bridge-NAME and loop-NAME put a bridge into the sets and take it out with its last pod. nftables has no way to
accept what another table drops: what such a table drops, stays dropped. Cold.
"""

from __future__ import annotations

import ipaddress

from plugins.packet_filters.nft_record import Element
from plugins.packet_filters.nft_table import Part, Table
from runtime_core.errors import InvalidArgument
from runtime_core.network import nft_expressions as nfx
from runtime_core.network import nftables as nft

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime_core.interfaces.packet_filter import AdmissionOptions
    from runtime_core.network.nftables import Socket

_FAMILIES = {4: nft.IPV4, 6: nft.IPV6}
_SECOND_NAME = 4


def add(sock: Socket, addresses: list[str], options: AdmissionOptions, owner: str) -> None:
    for family, parts, elements in _plan(addresses, options):
        _TABLE.put(sock, family, owner, parts, elements)


def remove(sock: Socket, owner: str) -> bool:
    """False when there was nothing."""
    return _TABLE.remove(sock, owner)


def listed(sock: Socket) -> list[tuple[str, str]]:
    """(address, owner) of all."""
    return [
        (str(ipaddress.ip_address(element.key)), attachment.owner)
        for attachment in _TABLE.everything(sock)
        for element in attachment.elements
    ]


def missing(sock: Socket, addresses: list[str], options: AdmissionOptions, owner: str) -> list[str]:
    words = []
    for family, parts, elements in _plan(addresses, options):
        shared = [element for part in parts for element in part.shared]
        for missing in _TABLE.missing(sock, family, owner, parts, elements):
            if isinstance(missing, Part):
                words.append(f"the rules of part {missing.name}")
            else:
                words.append(f"the admission of {ipaddress.ip_address(missing.key)}")
        for element in shared:
            if nft.find_element(sock, family, _TABLE.name, element.in_set, element.key) is None:
                words.append(f"bridge {options.bridge} in set {element.in_set}")
    return words


def repair(sock: Socket) -> None:
    _TABLE.repair(sock)


def _plan(addresses: list[str], options: AdmissionOptions) -> list[tuple[int, list[Part], list[Element]]]:
    if options.admin_chain:
        raise InvalidArgument("iptablesAdminChainName: only the iptables backend has chains of iptables")
    plan = []
    for version, family in _FAMILIES.items():
        ips = [ip for ip in (ipaddress.ip_interface(address).ip for address in addresses) if ip.version == version]
        if ips:
            parts = [_admit(family)]
            if options.bridge:
                parts += [_isolation(), _bridge(options.bridge), *([_loop(options.bridge)] if options.is_isolated else [])]
            plan.append((family, parts, [Element("admit-pods", ip.packed) for ip in dict.fromkeys(ips)]))
    return plan


def _admit(family: int) -> Part:
    listed_pods = [*nfx.in_set("admit-pods")]
    rules = [
        [*nfx.source(family), *listed_pods, *nfx.accept()],
        [*nfx.is_established(), *nfx.destination(family), *listed_pods, *nfx.accept()],
    ]
    return Part(
        "admit", sets={"pods": ([nft.ADDRESS[family]], None)}, chains={"forward": ("filter", nft.FORWARD, nft.FILTER, rules)}
    )


def _isolation() -> Part:
    pair = [*nfx.input_interface(), *nfx.output_interface(_SECOND_NAME)]
    between = [
        *nfx.input_interface(),
        *nfx.in_set("isolation-bridges"),
        *nfx.output_interface(),
        *nfx.in_set("isolation-bridges"),
    ]
    rules = [
        [*pair, *nfx.in_set("isolation-nowhere"), *nfx.drop()],
        [*pair, *nfx.in_set("isolation-inside"), *nfx.return_verdict()],
        [*between, *nfx.drop()],
    ]
    pairs: tuple[list[int], None] = ([nft.INTERFACE_NAME, nft.INTERFACE_NAME], None)
    return Part(
        "isolation",
        sets={"bridges": ([nft.INTERFACE_NAME], None), "inside": pairs, "nowhere": pairs},
        chains={"forward": ("filter", nft.FORWARD, nft.FILTER - 1, rules)},
    )


def _bridge(name: str) -> Part:
    key = nfx.interface_name(name)
    return Part(f"bridge-{name}", shared=[Element("isolation-bridges", key), Element("isolation-inside", key + key)])


def _loop(name: str) -> Part:
    key = nfx.interface_name(name)
    return Part(f"loop-{name}", shared=[Element("isolation-nowhere", key + key)])


def _part(family: int, name: str) -> Part:
    kind, _dash, bridge = name.partition("-")
    if kind == "bridge":
        return _bridge(bridge)
    if kind == "loop":
        return _loop(bridge)
    return _isolation() if kind == "isolation" else _admit(family)


_TABLE = Table("trivet_admission", _part)
