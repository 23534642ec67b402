"""What the reference plugins (containernetworking/plugins, to v1.9.1) keep in iptables, read and taken down. Cold.

    nat     POSTROUTING: -s 10.1.0.5/32 --comment "name: "net" id: "c1"" -j CNI-<hash of network and container>
            CNI-HOSTPORT-DNAT: -p tcp -m multiport --dports 8080 --comment "dnat name: "net" id: "c1"" -j CNI-DN-<the same>
            CNI-HOSTPORT-SETMARK, CNI-HOSTPORT-MASQ: what these stand on
    filter  CNI-FORWARD: -d 10.1.0.5/32 … -j ACCEPT; -s 10.1.0.5/32 -j ACCEPT
            CNI-ISOLATION-STAGE-1, -2: ingressPolicy

No process is started where the kernel says that no such chain is there. What all of theirs stands on goes with the last:
CNI-HOSTPORT-MASQ would masquerade connections that ours have marked.
"""

from __future__ import annotations

import hashlib
import re

from plugins.packet_filters import ipt_command as ipt
from runtime_core.network import nftables as nft

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime_core.interfaces.packet_filter import PortMap
_FAMILIES = {4: nft.IPV4, 6: nft.IPV6}
_CHAIN_BYTES = 28
_DNAT, _MARK, _MASQ = "CNI-HOSTPORT-DNAT", "CNI-HOSTPORT-SETMARK", "CNI-HOSTPORT-MASQ"
_FORWARD, _ADMIN, _ISOLATION = "CNI-FORWARD", "CNI-ADMIN", ("CNI-ISOLATION-STAGE-1", "CNI-ISOLATION-STAGE-2")
_COMMENT = re.compile(r'(?:dnat )?name: "([^"]*)" id: "([^"]*)"?')


def masquerades(network: str, container_id: str) -> list[str]:
    """Addresses of one container."""
    chain, found = _chain("CNI-", network, container_id), []
    for version, kind in _where("nat", chain):
        lines = ipt.rules(version, "nat", kind=kind) or []
        masquerading = any(words[:2] == ["-A", chain] and ipt.option_value(words, "-j") == "MASQUERADE" for words in lines)
        found += [_address(words, "-s") for words in ipt.jumps(lines, chain) if masquerading]
    return found


def unmasquerade(network: str, container_id: str) -> None:
    chain = _chain("CNI-", network, container_id)
    for version, kind in _where("nat", chain):
        with ipt.locked():
            _remove_chain(version, kind, chain, ipt.rules(version, "nat", kind=kind) or [])


def ports(network: str, container_id: str) -> list[tuple[PortMap, str]]:
    """(port map, pod's address) of one container to which packets are led."""
    chain = _chain("CNI-DN-", network, container_id)
    places = _where("nat", chain)
    return [one for version, kind in places for one in _mapped(ipt.rules(version, "nat", kind=kind) or [], chain)]


def unmap_ports(network: str, container_id: str) -> list[tuple[PortMap, str]]:
    """What there was, as `ports` tells it."""
    chain, had = _chain("CNI-DN-", network, container_id), []
    for version, kind in _where("nat", chain):
        with ipt.locked():
            lines = ipt.rules(version, "nat", kind=kind) or []
            had += _mapped(lines, chain)
            _remove_chain(version, kind, chain, lines)
    return had


def admits() -> bool:
    """Whether their firewall may admit anybody."""
    return bool(_where("filter", _FORWARD))


def admitted(addresses: list[str]) -> set[str]:
    """Those of them whose packets are let pass."""
    found = set()
    for version, kind in _where("filter", _FORWARD):
        for words in ipt.rules(version, "filter", _FORWARD, kind) or []:
            if ipt.option_value(words, "-j") == "ACCEPT" and _address(words, "-s") in addresses:
                found.add(_address(words, "-s"))
    return found


def unadmit(addresses: set[str]) -> None:
    for version, kind in _where("filter", _FORWARD):
        with ipt.locked():
            lines = ipt.rules(version, "filter", kind=kind) or []
            own = [words for words in lines if words[:2] == ["-A", _FORWARD] and ipt.option_value(words, "-j") == "ACCEPT"]
            gone = [words for words in own if {_address(words, "-s"), _address(words, "-d")} & addresses]
            if gone:
                ends = _forward_ends(lines) if len(gone) == len(own) else []
                ipt.restore(version, {"filter": [*ipt.removals(gone), *ends]}, kind)


def attachments() -> list[tuple[str, str, str]]:
    """(network, container id, address or "") of all that says whose it is."""
    found = []
    for version, kind in _where("nat", "POSTROUTING"):
        for words in ipt.rules(version, "nat", kind=kind) or []:
            named = _COMMENT.fullmatch(ipt.comment(words))
            if named and words[1] in ("POSTROUTING", _DNAT):
                found.append((named[1], named[2], _address(words, "-s")))
    return found


def _mapped(lines: list[list[str]], chain: str) -> list[tuple[PortMap, str]]:
    from plugins.packet_filters.ipt_ports import mapped  # here: as a rule there is nothing to read

    is_entered = ipt.jumps(lines, chain) and ipt.jumps(lines, _DNAT)
    return mapped([words for words in lines if words[:2] == ["-A", chain]]) if is_entered else []


def _where(table: str, chain: str) -> list[tuple[int, str]]:
    """(IP version, kind of executables) of the tables that have the chain. The kernel is asked first, which costs least."""
    with nft.Socket(closes_later=True) as sock:
        places = [(version, "nft") for version in ipt.FAMILIES if nft.has_chains(sock, _FAMILIES[version], table, [chain])]
    places += [(version, "legacy") for version in ipt.FAMILIES if table in ipt.legacy_tables(version)]
    programs = [(version, "" if ipt.default_kind(version) == kind else kind) for version, kind in places]
    found = [(version, kind) for version, kind in programs if ipt.is_installed(version, kind)]
    return [(version, kind) for version, kind in found if ipt.rules(version, table, chain, kind) is not None]


def _remove_chain(version: int, kind: str, chain: str, lines: list[list[str]]) -> None:
    """Of a container, with what leads there; and with the last that has ports, what they stand on."""
    if ["-N", chain] not in lines:
        return
    entries = ipt.jumps(lines, chain)
    gone = [*ipt.removals(entries), ["-F", chain], ["-X", chain]]
    left = [words for words in lines if words[:2] == ["-A", _DNAT] and words not in entries]
    ends = _hostport_ends(lines) if any(words[1] == _DNAT for words in entries) and not left else []
    if not ends or not ipt.try_restore(version, {"nat": [*gone, *ends]}, kind):
        ipt.restore(version, {"nat": gone}, kind)


def _hostport_ends(lines: list[list[str]]) -> list[list[str]]:
    chains = [chain for chain in (_DNAT, _MARK, _MASQ) if ["-N", chain] in lines]
    hooks = [words for chain in chains for words in ipt.jumps(lines, chain) if not words[1].startswith("CNI-")]
    flushed = [["-F", chain] for chain in chains if chain != _DNAT]  # it is empty: iptables-nft would forget the rules removed
    return [*ipt.removals(hooks), *flushed, *(["-X", chain] for chain in chains)]


def _forward_ends(lines: list[list[str]]) -> list[list[str]]:
    chains = [chain for chain in (_FORWARD, *_ISOLATION) if ["-N", chain] in lines]
    hooks = [words for chain in chains for words in ipt.jumps(lines, chain) if words[1] == "FORWARD"]
    ends = [*ipt.removals(hooks), *(["-F", chain] for chain in chains), *(["-X", chain] for chain in chains)]
    is_used = any(words[:2] == ["-A", _ADMIN] for words in lines) or any(
        words[1] != _FORWARD for words in ipt.jumps(lines, _ADMIN)
    )
    return [*ends, *([["-X", _ADMIN]] if ["-N", _ADMIN] in lines and not is_used else [])]


def _address(words: list[str], option: str) -> str:
    return ipt.option_value(words, option).partition("/")[0]


def _chain(prefix: str, network: str, container_id: str) -> str:
    return (prefix + hashlib.sha512((network + container_id).encode()).hexdigest())[:_CHAIN_BYTES]
