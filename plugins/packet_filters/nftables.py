"""trivet.packetfilter nftables, by netlink: three tables of its own, none of which is there without a pod.

What stands in them is said in nft_masquerade, nft_ports and nft_admission; who owns it, in nft_table. Cold.
"""

from __future__ import annotations

import errno
from contextlib import contextmanager

from plugins.packet_filters import nft_admission, nft_masquerade, nft_ports
from runtime_core.errors import FailedPrecondition, from_oserror
from runtime_core.network.nftables import Socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime_core.interfaces.packet_filter import AdmissionOptions, PortMap, PortOptions


#: of what has been made before it is used
_LACKING = (errno.ENOENT, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT)


class NftablesFilter:
    """See runtime_core.interfaces.packet_filter."""

    def masquerade(self, addresses: list[str], owner: str) -> None:
        with _kernel(f"masquerading {', '.join(addresses)} by nftables") as sock:
            nft_masquerade.add(sock, addresses, owner)

    def unmasquerade(self, owner: str, addresses: list[str]) -> None:
        with _kernel(f"removing the masquerading of {owner}") as sock:
            nft_masquerade.remove(sock, owner, addresses)

    def masqueraded(self) -> list[tuple[str, str]]:
        with _kernel("listing what is masqueraded by nftables") as sock:
            return nft_masquerade.listed(sock)

    def map_ports(self, addresses: list[str], ports: list[PortMap], options: PortOptions, owner: str) -> None:
        with _kernel(f"mapping {len(ports)} ports to {', '.join(addresses)} by nftables") as sock:
            nft_ports.add(sock, addresses, ports, options, owner)

    def unmap_ports(self, owner: str) -> list[tuple[PortMap, str]]:
        with _kernel(f"removing the port maps of {owner}") as sock:
            return nft_ports.remove(sock, owner)

    def mapped_ports(self) -> list[tuple[PortMap, str, str]]:
        with _kernel("listing the port maps of nftables") as sock:
            return nft_ports.listed(sock)

    def missing_ports(self, addresses: list[str], ports: list[PortMap], options: PortOptions, owner: str) -> list[str]:
        with _kernel(f"checking the port maps of {owner}") as sock:
            return nft_ports.missing(sock, addresses, ports, options, owner)

    def admit(self, addresses: list[str], options: AdmissionOptions, owner: str) -> None:
        with _kernel(f"admitting {', '.join(addresses)} by nftables") as sock:
            nft_admission.add(sock, addresses, options, owner)

    def unadmit(self, owner: str) -> bool:
        with _kernel(f"removing the admission of {owner}") as sock:
            return nft_admission.remove(sock, owner)

    def admitted(self) -> list[tuple[str, str]]:
        with _kernel("listing what is admitted by nftables") as sock:
            return nft_admission.listed(sock)

    def missing_admission(self, addresses: list[str], options: AdmissionOptions, owner: str) -> list[str]:
        with _kernel(f"checking the admission of {owner}") as sock:
            return nft_admission.missing(sock, addresses, options, owner)

    def is_overruled(self, addresses: list[str], interface: str) -> bool:
        from plugins.packet_filters import refusals  # here: who maps ports and masquerades needs none of it

        sent = refusals.packets(addresses, interface)
        return any(refusals.kinds_that_may_drop(version, sent) for version in (4, 6))

    def refusals(self, addresses: list[str], interface: str) -> list[str]:
        from plugins.packet_filters import refusals

        return refusals.certain_drops(refusals.packets(addresses, interface), [])

    def repair(self) -> None:
        with _kernel("mending the rules of nftables") as sock:
            nft_masquerade.repair(sock)
            nft_ports.repair(sock)
            nft_admission.repair(sock)


@contextmanager
def _kernel(doing: str) -> Iterator[Socket]:
    try:
        with Socket() as sock:
            yield sock
    except OSError as error:
        if error.errno in _LACKING:
            raise FailedPrecondition(f"{doing}: the kernel lacks a part of nf_tables that this needs: {error}") from error
        raise from_oserror(error, doing) from error
