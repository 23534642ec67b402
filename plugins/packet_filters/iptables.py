"""trivet.packetfilter iptables, by the executables of the node: legacy or nf_tables, as the administrator has chosen.

What is made is said in ipt_masquerade, ipt_ports and ipt_admission. One restore per call and family. Cold.
"""

from __future__ import annotations

from plugins.packet_filters import ipt_admission, ipt_masquerade, ipt_ports, refusals
from runtime_core.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime_core.interfaces.packet_filter import AdmissionOptions, PortMap, PortOptions

#: iptables takes 255 bytes of comment, and ours may say more than the owner
_MOST_OWNER = 220


class IptablesFilter:
    """See runtime_core.interfaces.packet_filter."""

    def masquerade(self, addresses: list[str], owner: str) -> None:
        _check(owner)
        ipt_masquerade.add(addresses, owner)

    def unmasquerade(self, owner: str, addresses: list[str]) -> None:
        ipt_masquerade.remove(owner, addresses)

    def masqueraded(self) -> list[tuple[str, str]]:
        return ipt_masquerade.listed()

    def map_ports(self, addresses: list[str], ports: list[PortMap], options: PortOptions, owner: str) -> None:
        _check(owner)
        ipt_ports.add(addresses, ports, options, owner)

    def unmap_ports(self, owner: str) -> list[tuple[PortMap, str]]:
        return ipt_ports.remove(owner)

    def mapped_ports(self) -> list[tuple[PortMap, str, str]]:
        return ipt_ports.listed()

    def missing_ports(self, addresses: list[str], ports: list[PortMap], options: PortOptions, owner: str) -> list[str]:
        return ipt_ports.missing(addresses, ports, options, owner)

    def admit(self, addresses: list[str], options: AdmissionOptions, owner: str) -> None:
        _check(owner)
        ipt_admission.add(addresses, options, owner)

    def unadmit(self, owner: str) -> bool:
        return ipt_admission.remove(owner)

    def admitted(self) -> list[tuple[str, str]]:
        return ipt_admission.listed()

    def missing_admission(self, addresses: list[str], options: AdmissionOptions, owner: str) -> list[str]:
        return ipt_admission.missing(addresses, options, owner)

    def is_overruled(self, addresses: list[str], interface: str) -> bool:
        return False

    def refusals(self, addresses: list[str], interface: str) -> list[str]:
        return refusals.certain_drops(refusals.packets(addresses, interface), ipt_admission.overruled())

    def repair(self) -> None:
        ipt_ports.repair()
        ipt_masquerade.repair()
        ipt_admission.repair()


def _check(owner: str) -> None:
    if len(owner.encode()) > _MOST_OWNER:
        raise InvalidArgument(
            f"name: {owner.split(' ')[0]!r} and the container's id are longer than {_MOST_OWNER} bytes together"
        )
