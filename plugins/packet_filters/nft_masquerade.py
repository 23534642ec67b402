"""Masquerading by nftables: one table per family, one map element per pod address.

    table ip trivet_cni
      map pods { type ipv4_addr : verdict; elements = { 10.1.0.5 : jump masq-10.1.0.0-16 } }
      chain postrouting { type nat hook postrouting priority srcnat; ip saddr vmap @pods }
      chain masq-10.1.0.0-16 { ip daddr 10.1.0.0/16 return; ip daddr 224.0.0.0/4 return; masquerade }

So an ADD changes one element, whatever the number of pods. A network's chain goes with its last pod, the table with
its last network: the kernel refuses to delete what has users. Cold.
"""

from __future__ import annotations

import errno
import ipaddress

from runtime_core.errors import Unavailable
from runtime_core.network import nft_expressions as nfx
from runtime_core.network import nftables as nft

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime_core.kernel.netlink import Message
    from runtime_core.network.nftables import Socket

    Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
    Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_TABLE, _MAP, _HOOK = "trivet_cni", "pods", "postrouting"
_FAMILIES = {4: nft.IPV4, 6: nft.IPV6}
_MULTICAST = {4: ipaddress.ip_network("224.0.0.0/4"), 6: ipaddress.ip_network("ff00::/8")}
#: of a network's chain without a pod; and what the table has without a network: the map and the hook
_RULES, _OBJECTS = 3, 2
_ATTEMPTS = 1000
_LOST = (errno.ERESTART, errno.ENOENT, errno.EEXIST, errno.EBUSY, errno.EAGAIN)


def add(sock: Socket, addresses: list[str], owner: str) -> None:
    interfaces = [ipaddress.ip_interface(address) for address in dict.fromkeys(addresses)]
    wanted = [_element(interface, owner) for interface in interfaces]
    # Asked before, for a transaction that fails costs an RCU grace period.
    if all(nft.has_chains(sock, _FAMILIES[one.version], _TABLE, [_chain(one.network)]) for one in interfaces):
        try:
            sock.transact(wanted)
            return
        except OSError as error:
            if error.errno not in _LOST:
                raise
    for _attempt in range(_ATTEMPTS):
        generation = sock.generation()
        messages = [message for interface in interfaces for message in _foundation(interface)]
        # The kernel would keep an earlier owner's name.
        messages += [_removal(i.version, i.ip.packed) for i in interfaces if _find(sock, i.version, i.ip.packed)]
        try:
            sock.transact([*messages, *wanted], generation)
            return
        except OSError as error:
            if error.errno != errno.ERESTART:
                raise
    raise Unavailable("nftables: other changes kept interrupting the masquerading")


def remove(sock: Socket, owner: str, addresses: list[str]) -> None:
    for _attempt in range(_ATTEMPTS):
        generation = sock.generation()
        owned = _owned(sock, owner, addresses)
        if not owned:
            return
        try:
            sock.transact([_removal(version, packed) for version, packed, _chain in owned], generation)
        except OSError as error:
            if error.errno not in _LOST:
                raise
            continue
        for version, chain in {(version, chain) for version, _packed, chain in owned}:
            _clear(sock, _FAMILIES[version], chain)
        return
    raise Unavailable("nftables: other changes kept interrupting the end of a masquerading")


def listed(sock: Socket) -> list[tuple[str, str]]:
    """(address, owner) of all."""
    return [
        (str(ipaddress.ip_address(packed)), owner)
        for family in _FAMILIES.values()
        for packed, _chain, owner in nft.elements(sock, family, _TABLE, _MAP)
    ]


def _owned(sock: Socket, owner: str, addresses: list[str]) -> list[tuple[int, bytes, str]]:
    """(IP version, address, chain) of what is `owner`'s among `addresses`, or of all; an address may have gone to
    somebody else since."""
    if not addresses:
        return [
            (version, packed, chain.decode())
            for version, family in _FAMILIES.items()
            for packed, chain, whose in nft.elements(sock, family, _TABLE, _MAP)
            if whose == owner
        ]
    found: list[tuple[int, bytes, str]] = []
    for ip in dict.fromkeys(ipaddress.ip_interface(address).ip for address in addresses):
        element = _find(sock, ip.version, ip.packed)
        if element is not None and element[1] == owner:
            found.append((ip.version, ip.packed, element[0].decode()))
    return found


def _clear(sock: Socket, family: int, chain: str) -> None:
    if nft.chain_uses(sock, family, _TABLE, chain) == _RULES:
        _unless_in_use(sock, [nft.remove_chain(family, _TABLE, chain)])
    if nft.table_uses(sock, family, _TABLE) == _OBJECTS:
        messages = [nft.remove_chain(family, _TABLE, _HOOK), nft.remove_set(family, _TABLE, _MAP, must_be_empty=True)]
        _unless_in_use(sock, [*messages, nft.remove_table(family, _TABLE)])


def _unless_in_use(sock: Socket, messages: list[Message]) -> None:
    """Somebody who came, or was quicker, in the meantime is welcome."""
    try:
        sock.transact(messages)
    except OSError as error:
        if error.errno not in _LOST:
            raise


def _foundation(interface: Interface) -> list[Message]:
    """Everything that an element of this network stands on; said again, it changes nothing."""
    family, network, chain = _FAMILIES[interface.version], interface.network, _chain(interface.network)
    hook = [*nfx.source(family), *nfx.verdict_of(_MAP)]
    return [
        nft.table(family, _TABLE),
        nft.new_set(family, _TABLE, _MAP, [nft.ADDRESS[family]], []),
        nft.base_chain(family, _TABLE, _HOOK, "nat", nft.POSTROUTING, nft.SRCNAT),
        nft.flush_chain(family, _TABLE, _HOOK),
        nft.rule(family, _TABLE, _HOOK, hook),
        nft.chain(family, _TABLE, chain),
        nft.flush_chain(family, _TABLE, chain),
        nft.rule(family, _TABLE, chain, _stays(family, network)),
        nft.rule(family, _TABLE, chain, _stays(family, _MULTICAST[interface.version])),
        nft.rule(family, _TABLE, chain, nfx.masquerade()),
    ]


def _stays(family: int, network: Network) -> list[Any]:
    within = [*nfx.masked(network.netmask.packed), *nfx.equals(network.network_address.packed)]
    return [*nfx.destination(family), *within, *nfx.leave()]


def _element(interface: Interface, owner: str) -> Message:
    family, chain = _FAMILIES[interface.version], _chain(interface.network)
    return nft.element(family, _TABLE, _MAP, interface.ip.packed, chain, owner, must_be_new=True)


def _removal(version: int, packed: bytes) -> Message:
    return nft.remove_element(_FAMILIES[version], _TABLE, _MAP, packed)


def _find(sock: Socket, version: int, packed: bytes) -> tuple[bytes, str] | None:
    return nft.find_element(sock, _FAMILIES[version], _TABLE, _MAP, packed)


def _chain(network: Network) -> str:
    return f"masq-{network.network_address}-{network.prefixlen}".replace(":", ".")
