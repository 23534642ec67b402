"""What the reference plugins (containernetworking/plugins, to v1.9.1) keep in nftables, read and taken down. Cold.

    table inet cni_plugins_masquerade
      chain masq_checks       ip saddr == 10.1.0.5 ip daddr != 10.1.0.0/16 masquerade
                              comment "<hash of the network>-<hash of interface and container>, net: …, if: …, id: …"
    table ip|ip6 cni_hostport
      chain hostports, hostip_hostports, masquerading        … comment "<container id>"
    table bridge nat
      chain PREROUTING        … jump cni-br-iface-<container id>-<interface> comment "macspoofchk-<container id>-<interface>"

A table of theirs goes with the last rule that is somebody's: it is made anew by the plugin that needs it, in one transaction.
"""

from __future__ import annotations

import hashlib
import ipaddress

from runtime_core.errors import Unavailable
from runtime_core.interfaces.packet_filter import PortMap
from runtime_core.network import nft_expressions as nfx
from runtime_core.network import nft_reading
from runtime_core.network import nftables as nft

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime_core.network.nft_reading import Expression, ReadRule
    from runtime_core.network.nftables import Socket

    Wanted = Callable[[ReadRule], bool]

_INET, _BRIDGE = 1, 7
_MASQUERADE, _CHECKS = "cni_plugins_masquerade", "masq_checks"
_HOSTPORT, _HOSTPORT_CHAINS = "cni_hostport", ("hostports", "hostip_hostports", "masquerading")
_SPOOF_TABLE, _SPOOF_BASE, _SPOOF_COMMENT, _SPOOF_CHAIN = "nat", "PREROUTING", "macspoofchk-", "cni-br-iface-"
#: what does not fit is left away at the end
MOST_COMMENT = 128
_NAMES = {number: name for name, number in nfx.PROTOCOLS.items()}
_NETWORK_HEADER, _TRANSPORT_HEADER, _DESTINATION_PORT, _L4_PROTOCOL = 1, 2, 2, 16


def network_mark(network: str) -> str:
    """How the comments of a network's masquerading begin."""
    return _hash(network) + "-"


def attachment_mark(network: str, container_id: str, interface: str) -> str:
    """How those of one attachment begin."""
    return network_mark(network) + _hash(f"{interface}:{container_id}")


def masquerades(sock: Socket, wanted: Wanted) -> list[tuple[str, str]]:
    """(address, comment) of the masquerading whose rules are wanted."""
    found = [rule for rule in nft_reading.rules(sock, _INET, _MASQUERADE, _CHECKS) if wanted(rule)]
    return [(address, rule.comment) for rule in found if (address := _source(rule))]


def unmasquerade(sock: Socket, wanted: Wanted) -> None:
    _remove(sock, _INET, _MASQUERADE, (_CHECKS,), wanted)


def ports(sock: Socket, wanted: Wanted) -> list[tuple[PortMap, str]]:
    """(port map, pod's address) of the rules that are wanted."""
    found = []
    families = [family for family in nft.ADDRESS if nft.table_uses(sock, family, _HOSTPORT) is not None]
    for family, chain in [(family, chain) for family in families for chain in _HOSTPORT_CHAINS]:
        rules = nft_reading.rules(sock, family, _HOSTPORT, chain)
        found += [_port(rule, family) for rule in rules if wanted(rule)]
    return [one for one in found if one is not None]


def unmap_ports(sock: Socket, wanted: Wanted) -> list[tuple[PortMap, str]]:
    """What there was, as `ports` tells it."""
    had = ports(sock, wanted)
    for family in nft.ADDRESS:
        if nft.table_uses(sock, family, _HOSTPORT) is not None:
            _remove(sock, family, _HOSTPORT, _HOSTPORT_CHAINS, wanted)
    return had


def guarded(sock: Socket) -> list[str]:
    """ "<container id>-<interface>" of each that macspoofchk guards."""
    rules = nft_reading.rules(sock, _BRIDGE, _SPOOF_TABLE, _SPOOF_BASE)
    return [rule.comment.removeprefix(_SPOOF_COMMENT) for rule in rules if rule.comment.startswith(_SPOOF_COMMENT)]


def unguard(sock: Socket, one: str) -> None:
    """`one`: as `guarded` tells it. The table may be somebody else's, too, and stays."""
    for _attempt in range(nft.ATTEMPTS):
        generation = sock.generation()
        rules = nft_reading.rules(sock, _BRIDGE, _SPOOF_TABLE, _SPOOF_BASE)
        handles = [rule.handle for rule in rules if rule.comment == _SPOOF_COMMENT + one]
        chains = [_SPOOF_CHAIN + one, f"{_SPOOF_CHAIN}{one}-mac"]
        there = [name for name in chains if nft.has_chains(sock, _BRIDGE, _SPOOF_TABLE, [name])]
        messages = [nft.remove_rule(_BRIDGE, _SPOOF_TABLE, _SPOOF_BASE, handle) for handle in handles]
        messages += [nft.remove_chain(_BRIDGE, _SPOOF_TABLE, name) for name in there]
        if not messages or sock.try_transact(messages, generation):
            return
    raise Unavailable("nftables: other changes kept interrupting the end of the reference plugins' macspoofchk")


def _remove(sock: Socket, family: int, table: str, chains: tuple[str, ...], wanted: Wanted) -> None:
    for _attempt in range(nft.ATTEMPTS):
        generation = sock.generation()
        rules = [(chain, rule) for chain in chains for rule in nft_reading.rules(sock, family, table, chain)]
        gone = [(chain, rule) for chain, rule in rules if wanted(rule)]
        if not gone:
            return
        messages = [nft.remove_rule(family, table, chain, rule.handle) for chain, rule in gone]
        if len(gone) == len(rules):
            messages = [nft.remove_whole_table(family, table)]
        if sock.try_transact(messages, generation):
            return
    raise Unavailable(f"nftables: other changes kept interrupting the change of table {table}")


def _source(rule: ReadRule) -> str:
    """The address whose packets it masquerades, "" of another rule."""
    for family, (offset, _destination) in nfx.ADDRESS_OFFSETS.items():
        address = _compared(rule, "payload", {2: _NETWORK_HEADER, 3: offset})
        if len(address) == nft.ADDRESS_BYTES[family]:
            return str(ipaddress.ip_address(address))
    return ""


def _port(rule: ReadRule, family: int) -> tuple[PortMap, str] | None:
    host = _compared(rule, "payload", {2: _NETWORK_HEADER, 3: nfx.ADDRESS_OFFSETS[family][1]})
    host_port = _compared(rule, "payload", {2: _TRANSPORT_HEADER, 3: _DESTINATION_PORT})
    protocol = _compared(rule, "meta", {2: _L4_PROTOCOL})
    to = [one.data(2) for one in rule.expressions if one.name == "immediate" and one.data(2)]
    if len(to) != 2 or not host_port or protocol[:1] not in [bytes([one]) for one in _NAMES]:
        return None
    numbers = int.from_bytes(host_port, "big"), int.from_bytes(to[1], "big")
    host_ip = str(ipaddress.ip_address(host)) if host else ""
    return PortMap(_NAMES[protocol[0]], *numbers, host_ip), str(ipaddress.ip_address(to[0]))


def _compared(rule: ReadRule, name: str, numbers: dict[int, int]) -> bytes:
    """With what an expression is compared that loads this; b"" where none does."""
    pairs: list[tuple[Expression, Expression]] = list(zip(rule.expressions, rule.expressions[1:], strict=False))
    for loading, comparing in pairs:
        is_wanted = loading.name == name and all(loading.number(key) == value for key, value in numbers.items())
        if is_wanted and comparing.name == "cmp":
            return comparing.data(3)
    return b""


def _hash(text: str) -> str:
    return hashlib.sha512(text.encode()).hexdigest()[:16]
