"""Masquerading by nftables: one table per family, three elements per pod address.

    table ip trivet_cni
      map pods { type ipv4_addr : verdict; elements = { 10.1.0.5 : jump masq-16 comment "<owner>" } }  # the record
      set sources-16 { type ipv4_addr }             # pods in networks of this length
      set near-16 { type ipv4_addr . ipv4_addr }    # the network, and the pod
      chain postrouting-16 { nat, srcnat; ip saddr @sources-16 jump masq-16 }
      chain masq-16 { ip daddr and 255.255.0.0 . ip saddr @near-16 return; ip daddr 224.0.0.0/4 return; masquerade }

No rule looks at the map, for the kernel would go through all of its verdicts at each ADD. It counts for us whose chains
are in use: what belongs to a length goes with its last pod, the table with the last length. Cold.
"""

from __future__ import annotations

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

_TABLE, _MAP, _PREFIX = "trivet_cni", "pods", "masq-"
_FAMILIES = {4: nft.IPV4, 6: nft.IPV6}
_MULTICAST = {4: ipaddress.ip_network("224.0.0.0/4"), 6: ipaddress.ip_network("ff00::/8")}
#: rules of a length's chain, and how often it is used without a pod; what the table has without a length: the map
_RULES, _USES, _OBJECTS = 3, 4, 1


def add(sock: Socket, addresses: list[str], owner: str) -> None:
    interfaces = [ipaddress.ip_interface(address) for address in dict.fromkeys(addresses)]
    wanted = [message for interface in interfaces for message in _elements(interface, owner)]
    # Asked before, for a transaction that fails costs an RCU grace period.
    is_founded = all(nft.has_chains(sock, _FAMILIES[interface.version], _TABLE, [_chain(interface)]) for interface in interfaces)
    if is_founded and sock.try_transact(wanted):
        return
    for _attempt in range(nft.ATTEMPTS):
        generation = sock.generation()
        messages = [message for interface in interfaces for message in _base_messages(interface)]
        for interface in interfaces:  # the kernel would keep an earlier owner's name
            earlier = _find(sock, interface.version, interface.ip.packed)
            if earlier is not None:
                found = _present(sock, interface.version, interface.ip.packed, earlier[0].decode())
                messages += [nft.remove_element(_FAMILIES[interface.version], _TABLE, *one) for one in found]
        if sock.try_transact([*messages, *wanted], generation, nft.CHANGED):
            return
    raise Unavailable("nftables: other changes kept interrupting the masquerading")


def remove(sock: Socket, owner: str, addresses: list[str]) -> None:
    """And, in the same transaction, what no pod needs any more: who is killed on the way leaves all of it or nothing."""
    for _attempt in range(nft.ATTEMPTS):
        generation = sock.generation()
        owned = _owned(sock, owner, addresses)
        messages = [message for version in _FAMILIES for message in _ends(sock, version, owned)]
        if not messages or sock.try_transact(messages, generation):
            return
    raise Unavailable("nftables: other changes kept interrupting the end of a masquerading")


def listed(sock: Socket) -> list[tuple[str, str]]:
    """(address, owner) of all that stand as they were made."""
    return [
        (str(ipaddress.ip_address(packed)), owner)
        for version in _FAMILIES
        for packed, _chain, owner, stands in _records(sock, version)
        if stands
    ]


def repair(sock: Socket) -> None:
    """What the map says and the rules and sets do not do."""
    for version in _FAMILIES:
        for packed, chain, owner, stands in _records(sock, version):
            if not stands:
                add(sock, [f"{ipaddress.ip_address(packed)}/{_length(chain)}"], owner)


def _records(sock: Socket, version: int) -> list[tuple[bytes, str, str, bool]]:
    """(address, chain, owner, whether it has all its elements and rules)."""
    family = _FAMILIES[version]
    records = nft.elements(sock, family, _TABLE, _MAP)
    chains = [name for name, _comment, _target in nft.rules(sock, family, _TABLE)] if records else []
    standing: dict[str, set[bytes]] = {}
    for name in {chain.decode() for _packed, chain, _owner in records}:
        if chains.count(name) == _RULES and _hook(name) in chains:
            sets = (nft.elements(sock, family, _TABLE, set_elements) for set_elements in (_sources(name), _near(name)))
            standing[name] = {key for set_elements in sets for key, _data, _comment in set_elements}
    return [
        (packed, chain.decode(), owner, {packed, _pair(packed, chain.decode())} <= standing.get(chain.decode(), set()))
        for packed, chain, owner in records
    ]


def _owned(sock: Socket, owner: str, addresses: list[str]) -> list[tuple[int, bytes, str]]:
    """(IP version, address, chain) of what is `owner`'s among `addresses`, or of all; an address may have gone to
    somebody else since, and of one that nobody has there may still be elements."""
    if not addresses:
        return [
            (version, packed, chain.decode())
            for version, family in _FAMILIES.items()
            for packed, chain, whose in nft.elements(sock, family, _TABLE, _MAP)
            if whose == owner
        ]
    found: list[tuple[int, bytes, str]] = []
    for interface in dict.fromkeys(ipaddress.ip_interface(address) for address in addresses):
        element = _find(sock, interface.version, interface.ip.packed)
        if element is None or element[1] == owner:
            chain = element[0].decode() if element is not None else _chain(interface)
            found.append((interface.version, interface.ip.packed, chain))
    return found


def _ends(sock: Socket, version: int, owned: list[tuple[int, bytes, str]]) -> list[Message]:
    """Of the family's elements that are owned, of the lengths that have no others, and of the table with the last length."""
    family, going = _FAMILIES[version], [(packed, chain) for one, packed, chain in owned if one == version]
    present = [(chain, place) for packed, chain in going for place in _present(sock, version, packed, chain)]
    messages = [nft.remove_element(family, _TABLE, *place) for _chain, place in present]
    recorded = [chain for chain, (in_set, _key) in present if in_set == _MAP]
    for chain in sorted({chain for _packed, chain in going} or _chains(sock, family)):
        uses = nft.chain_uses(sock, family, _TABLE, chain)
        if uses is not None and uses - recorded.count(chain) <= _USES:
            messages += _teardown(sock, family, chain)
    if nft.table_uses(sock, family, _TABLE) == nft.removed_objects(messages) + _OBJECTS:
        messages += [nft.remove_set(family, _TABLE, _MAP), nft.remove_table(family, _TABLE)]
    return messages


def _chains(sock: Socket, family: int) -> set[str]:
    """Of all lengths."""
    return {name for name, _comment, _target in nft.rules(sock, family, _TABLE) if name.startswith(_PREFIX)}


def _teardown(sock: Socket, family: int, chain: str) -> list[Message]:
    """Of a length: its hook first, which jumps to its chain."""
    chains = [name for name in (_hook(chain), chain) if nft.has_chains(sock, family, _TABLE, [name])]
    sets = [name for name in (_sources(chain), _near(chain)) if nft.has_set(sock, family, _TABLE, name)]
    return [
        *(nft.remove_chain(family, _TABLE, name) for name in chains),
        *(nft.remove_set(family, _TABLE, name) for name in sets),
    ]


def _base_messages(interface: Interface) -> list[Message]:
    """Messages that create what elements of this prefix length need; repeated, they change nothing."""
    family, chain = _FAMILIES[interface.version], _chain(interface)
    address, hook = nft.ADDRESS[family], _hook(chain)
    near = [*nfx.destination(family), *nfx.masked(interface.netmask.packed), *nfx.source(family, nft.ADDRESS_BYTES[family] // 4)]
    return [
        nft.table(family, _TABLE),
        nft.new_set(family, _TABLE, _MAP, [address], []),
        nft.new_set(family, _TABLE, _sources(chain), [address]),
        nft.new_set(family, _TABLE, _near(chain), [address, address]),
        nft.chain(family, _TABLE, chain),
        nft.flush_chain(family, _TABLE, chain),
        nft.rule(family, _TABLE, chain, [*near, *nfx.in_set(_near(chain)), *nfx.return_verdict()]),
        nft.rule(family, _TABLE, chain, _keeps_address(family, _MULTICAST[interface.version])),
        nft.rule(family, _TABLE, chain, nfx.masquerade()),
        nft.base_chain(family, _TABLE, hook, "nat", nft.POSTROUTING, nft.SRCNAT),
        nft.flush_chain(family, _TABLE, hook),
        nft.rule(family, _TABLE, hook, [*nfx.source(family), *nfx.in_set(_sources(chain)), *nfx.jump(chain)]),
    ]


def _keeps_address(family: int, network: Network) -> list[Any]:
    within = [*nfx.masked(network.netmask.packed), *nfx.equals(network.network_address.packed)]
    return [*nfx.destination(family), *within, *nfx.return_verdict()]


def _elements(interface: Interface, owner: str) -> list[Message]:
    family, chain, packed = _FAMILIES[interface.version], _chain(interface), interface.ip.packed
    return [
        nft.element(family, _TABLE, _MAP, packed, chain, owner, must_be_new=True),
        nft.element(family, _TABLE, _sources(chain), packed, b"", ""),
        nft.element(family, _TABLE, _near(chain), _pair(packed, chain), b"", ""),
    ]


def _present(sock: Socket, version: int, packed: bytes, chain: str) -> list[tuple[str, bytes]]:
    """(set, key) of an address's elements, as far as they are there."""
    keys = ((_MAP, packed), (_sources(chain), packed), (_near(chain), _pair(packed, chain)))
    return [one for one in keys if nft.find_element(sock, _FAMILIES[version], _TABLE, *one) is not None]


def _find(sock: Socket, version: int, packed: bytes) -> tuple[bytes, str] | None:
    return nft.find_element(sock, _FAMILIES[version], _TABLE, _MAP, packed)


def _pair(packed: bytes, chain: str) -> bytes:
    return ipaddress.ip_interface((packed, _length(chain))).network.network_address.packed + packed


def _chain(interface: Interface) -> str:
    return f"{_PREFIX}{interface.network.prefixlen}"


def _hook(chain: str) -> str:
    return f"postrouting-{_length(chain)}"


def _sources(chain: str) -> str:
    return f"sources-{_length(chain)}"


def _near(chain: str) -> str:
    return f"near-{_length(chain)}"


def _length(chain: str) -> int:
    return int(chain.rpartition("-")[2])
