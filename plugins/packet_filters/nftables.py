"""trivet.packetfilter nftables: one table per family, one map element per pod address.

    table ip trivet_cni
      map pods { type ipv4_addr : verdict; elements = { 10.1.0.5 : jump masq-10.1.0.0-16 } }
      chain postrouting { type nat hook postrouting priority srcnat; ip saddr vmap @pods }
      chain masq-10.1.0.0-16 { ip daddr 10.1.0.0/16 accept; ip daddr 224.0.0.0/4 accept; masquerade }

So an ADD changes one element, whatever the number of pods. Cold.
"""

from __future__ import annotations

import ipaddress

from runtime_core.errors import from_oserror
from runtime_core.kernel import netlink
from runtime_core.network import nftables as nft

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime_core.kernel.netlink import Message

_TABLE, _MAP, _HOOK = "trivet_cni", "pods", "postrouting"
_FAMILIES = {4: nft.IPV4, 6: nft.IPV6}
_MULTICAST = {4: ipaddress.ip_network("224.0.0.0/4"), 6: ipaddress.ip_network("ff00::/8")}


class NftablesFilter:
    """See runtime_core.interfaces.packet_filter."""

    def masquerade(self, addresses: list[str], owner: str) -> None:
        interfaces = [ipaddress.ip_interface(address) for address in addresses]
        try:
            with netlink.Socket(netlink.NETFILTER) as sock:
                elements = [message for one in interfaces for message in _element(sock, one, owner)]
                try:
                    nft.transact(sock, elements)
                except FileNotFoundError:  # the first pod of this network
                    nft.transact(sock, [m for i in interfaces for m in _foundation(i)] + elements)
        except OSError as error:
            raise from_oserror(error, f"masquerading {', '.join(addresses)} by nftables") from error

    def unmasquerade(self, owner: str, addresses: list[str]) -> None:
        try:
            with netlink.Socket(netlink.NETFILTER) as sock:
                for version, packed in self._owned(sock, owner, addresses):
                    try:
                        nft.transact(sock, [nft.remove_element(_FAMILIES[version], _TABLE, _MAP, packed)])
                    except FileNotFoundError:
                        continue
        except OSError as error:
            raise from_oserror(error, f"removing the masquerading of {owner}") from error

    def masqueraded(self) -> list[tuple[str, str]]:
        try:
            with netlink.Socket(netlink.NETFILTER) as sock:
                return [
                    (str(ipaddress.ip_address(packed)), comment)
                    for family in _FAMILIES.values()
                    for packed, comment in nft.elements(sock, family, _TABLE, _MAP)
                ]
        except OSError as error:
            raise from_oserror(error, "listing what is masqueraded by nftables") from error

    def _owned(self, sock: netlink.Socket, owner: str, addresses: list[str]) -> list[tuple[int, bytes]]:
        """What is `owner`'s among `addresses`, or of all; an address may have gone to somebody else since."""
        if addresses:
            packed = [_packed(address) for address in addresses]
            return [(v, p) for v, p in packed if nft.comment(sock, _FAMILIES[v], _TABLE, _MAP, p) == owner]
        return [
            (version, packed)
            for version, family in _FAMILIES.items()
            for packed, comment in nft.elements(sock, family, _TABLE, _MAP)
            if comment == owner
        ]


def _foundation(interface: ipaddress.IPv4Interface | ipaddress.IPv6Interface) -> list[Message]:
    """Everything that an element of this network stands on; said again, it changes nothing."""
    family, network = _FAMILIES[interface.version], interface.network
    multicast = _MULTICAST[interface.version]
    chain = _chain(network)
    return [
        nft.table(family, _TABLE),
        nft.verdict_map(family, _TABLE, _MAP),
        nft.nat_chain(family, _TABLE, _HOOK, nft.POSTROUTING, nft.SRCNAT),
        nft.flush_chain(family, _TABLE, _HOOK),
        nft.rule(family, _TABLE, _HOOK, nft.jump_by_source(family, _MAP)),
        nft.chain(family, _TABLE, chain),
        nft.flush_chain(family, _TABLE, chain),
        nft.rule(family, _TABLE, chain, nft.accept_destination(family, network.network_address.packed, network.netmask.packed)),
        nft.rule(
            family, _TABLE, chain, nft.accept_destination(family, multicast.network_address.packed, multicast.netmask.packed)
        ),
        nft.rule(family, _TABLE, chain, nft.masquerade()),
    ]


def _element(sock: netlink.Socket, interface: ipaddress.IPv4Interface | ipaddress.IPv6Interface, owner: str) -> list[Message]:
    """The element of this address; one that an earlier owner left behind makes room, for the kernel would keep its name."""
    family, packed = _FAMILIES[interface.version], interface.ip.packed
    present = nft.comment(sock, family, _TABLE, _MAP, packed)
    stale = [nft.remove_element(family, _TABLE, _MAP, packed)] if present not in (None, owner) else []
    return [*stale, nft.element(family, _TABLE, _MAP, packed, _chain(interface.network), owner)]


def _chain(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> str:
    return f"masq-{network.network_address}-{network.prefixlen}".replace(":", ".")


def _packed(address: str) -> tuple[int, bytes]:
    ip = ipaddress.ip_interface(address).ip
    return ip.version, ip.packed
