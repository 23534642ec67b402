"""What the reference plugins made for pods that live on after a node has changed to ours: looked for, and taken down. Cold.

They say less of whom a rule is for than ours do: iptables knows no interface, the port maps of nftables know the container
alone, and the firewall knows addresses. So what is stale is found by whatever does name its network, and by the leases.
"""

from __future__ import annotations

from contextlib import contextmanager

from plugins.packet_filters import reference_ipt, reference_nft
from runtime_core.errors import from_oserror
from runtime_core.network.nftables import Socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime_core.interfaces.packet_filter import PortMap
    from runtime_core.network.nft_reading import ReadRule


class ReferenceRules:
    """Of the network namespace of the calling thread. An `owner` is "<network> <container id> <interface>"."""

    def masqueraded(self, owner: str) -> set[str]:
        """The addresses that are masqueraded for it."""
        network, container_id, interface = owner.split(" ", 2)
        mark = reference_nft.attachment_mark(network, container_id, interface)
        with _kernel("looking for masquerading of the reference plugins") as sock:
            found = reference_nft.masquerades(sock, lambda rule: rule.comment.startswith(mark))
        return {address for address, _comment in found} | set(reference_ipt.masquerades(network, container_id))

    def unmasquerade(self, owner: str) -> None:
        """Idempotent."""
        network, container_id, interface = owner.split(" ", 2)
        mark = reference_nft.attachment_mark(network, container_id, interface)
        with _kernel("removing masquerading of the reference plugins") as sock:
            reference_nft.unmasquerade(sock, lambda rule: rule.comment.startswith(mark))
        reference_ipt.unmasquerade(network, container_id)

    def mapped_ports(self, owner: str) -> list[tuple[PortMap, str]]:
        """(port map, pod's address) of what is mapped for its container."""
        network, container_id, _interface = owner.split(" ", 2)
        with _kernel("looking for port maps of the reference plugins") as sock:
            found = reference_nft.ports(sock, lambda rule: rule.comment == container_id)
        return found + reference_ipt.ports(network, container_id)

    def unmap_ports(self, owner: str) -> list[tuple[PortMap, str]]:
        """What there was. Idempotent."""
        network, container_id, _interface = owner.split(" ", 2)
        with _kernel("removing port maps of the reference plugins") as sock:
            had = reference_nft.unmap_ports(sock, lambda rule: rule.comment == container_id)
        return had + reference_ipt.unmap_ports(network, container_id)

    def admitted(self, addresses: list[str]) -> set[str]:
        """Those of the addresses (without length) that are let pass."""
        return reference_ipt.admitted(addresses)

    def unadmit(self, owner: str, addresses: list[str]) -> None:
        """Of the addresses, and of those that other rules name as its container's; what is another container's by now stays.
        Idempotent."""
        if not reference_ipt.admits():
            return
        network, container_id, _interface = owner.split(" ", 2)
        named = reference_ipt.attachments()
        others = {address for name, one, address in named if (name, one) != (network, container_id)}
        own = {address for _port, address in self.mapped_ports(owner)} | self.masqueraded(owner)
        reference_ipt.unadmit((own | set(addresses)) - others)

    def is_guarded(self, owner: str) -> bool:
        """Whether macspoofchk guards its port."""
        with _kernel("looking for macspoofchk of the reference plugins") as sock:
            return _port_name(owner) in reference_nft.guarded(sock)

    def unguard(self, owner: str) -> None:
        """Idempotent."""
        with _kernel("removing macspoofchk of the reference plugins") as sock:
            reference_nft.unguard(sock, _port_name(owner))

    def remove_stale(self, network: str, valid: set[tuple[str, str]], leases: list[tuple[str, str, str]]) -> None:
        """All that is `network`'s, but of those in `valid` (container id, interface). `leases`: (container id, interface,
        address) that are given out in it."""
        containers = {container_id for container_id, _interface in valid}
        mark = reference_nft.network_mark(network)
        kept = tuple(reference_nft.attachment_mark(network, *one) for one in valid)

        def is_stale(rule: ReadRule) -> bool:
            return rule.comment.startswith(mark) and not rule.comment.startswith(kept)

        with _kernel("looking for what is stale of the reference plugins") as sock:
            masquerades = reference_nft.masquerades(sock, is_stale)
            guarded = reference_nft.guarded(sock)
        stale = {(container_id, address) for container_id, _interface, address in leases}
        stale |= {(container_id, address) for name, container_id, address in reference_ipt.attachments() if name == network}
        stale |= {(_named(comment), address) for address, comment in masquerades}
        for container_id in sorted({one for one, _address in stale} - containers - {""}):
            self._remove_stale_one(network, container_id, [address for one, address in stale if one == container_id and address])
            for port in guarded:
                if port.startswith(f"{container_id}-"):
                    self.unguard(f"{network} {container_id} {port.removeprefix(f'{container_id}-')}")
        with _kernel("removing stale masquerading of the reference plugins") as sock:
            reference_nft.unmasquerade(sock, is_stale)  # last: until then it tells whose the rest is

    def _remove_stale_one(self, network: str, container_id: str, addresses: list[str]) -> None:
        owner = f"{network} {container_id} "
        self.unadmit(owner, addresses)
        self.unmap_ports(owner)
        self.unmasquerade(owner)


def _named(comment: str) -> str:
    """The container id that a comment of masquerading ends in; "" where it was too long for it."""
    return comment.partition(", id: ")[2] if len(comment.encode()) < reference_nft.MOST_COMMENT else ""


def _port_name(owner: str) -> str:
    return "-".join(owner.split(" ", 2)[1:])


@contextmanager
def _kernel(doing: str) -> Iterator[Socket]:
    try:
        # A netfilter socket is let go of when what anybody has removed before is freed: DEL does not wait for it.
        with Socket(closes_later=True) as sock:
            yield sock
    except OSError as error:
        raise from_oserror(error, doing) from error
