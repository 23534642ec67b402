"""The contract of `trivet.packetfilter`: address translation and admission of pods, in one transaction per call. Cold."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class PacketFilter(Protocol):
        """Works in the network namespace of the calling thread. The contract: runtime_core/testing/packet_filter_contract.py.

        An `owner` is "<network> <container id> <interface>". Addresses of pods are given with the length of their network
        ("10.1.0.5/16") and listed without it. Of port maps and admissions container and interface tell whose they are, for a
        network can be renamed: what the owner had is replaced by a later call, and what somebody else has is waited for.
        """

        def masquerade(self, addresses: list[str], owner: str) -> None:
            """Traffic from each of `addresses` to outside its network leaves with the
            node's address. `owner` names who asked; an address that
            an earlier owner left behind is its own now. Idempotent."""
            ...

        def unmasquerade(self, owner: str, addresses: list[str]) -> None:
            """Undo it. Idempotent; without addresses, what `owner` has is looked up. What has another owner stays."""
            ...

        def masqueraded(self) -> list[tuple[str, str]]:
            """(address, owner) of all."""
            ...

        def map_ports(self, addresses: list[str], ports: list[PortMap], options: PortOptions, owner: str) -> None:
            """Connections to ports of the node, of whatever address of its own, reach the same-family one of `addresses`.
            A port that another owner has stays with it, and is this one's when all who came earlier have gone; a port of
            all addresses is had before those of each. Idempotent. What an option cannot mean to this driver is
            InvalidArgument."""
            ...

        def unmap_ports(self, owner: str) -> list[tuple[PortMap, str]]:
            """Undo it; (port map, pod's address) of what there was. Idempotent."""
            ...

        def mapped_ports(self) -> list[tuple[PortMap, str, str]]:
            """(port map, pod's address, owner) of all, also of those whose turn comes later."""
            ...

        def missing_ports(self, addresses: list[str], ports: list[PortMap], options: PortOptions, owner: str) -> list[str]:
            """What is not there as map_ports made it, in words; to wait for a port that another has is no lack."""
            ...

        def admit(self, addresses: list[str], options: AdmissionOptions, owner: str) -> None:
            """The node forwards what `addresses` send and the answers to it. Idempotent."""
            ...

        def unadmit(self, owner: str) -> bool:
            """Undo it, and the isolation of a bridge with the last of its owners; False when there was nothing. Idempotent."""
            ...

        def admitted(self) -> list[tuple[str, str]]:
            """(address, owner) of all."""
            ...

        def missing_admission(self, addresses: list[str], options: AdmissionOptions, owner: str) -> list[str]:
            """What is not there as admit made it, in words."""
            ...

        def is_overruled(self, addresses: list[str], interface: str) -> bool:
            """Whether rules that the driver iptables overrules, and this one does not, may drop what `addresses` send by
            `interface` ("" when it is not known). Quick: it is asked at each ADD that leaves the choice to the node."""
            ...

        def refusals(self, addresses: list[str], interface: str) -> list[str]:
            """In words, the chains of others that certainly drop what `addresses` send by `interface`, or the answers,
            although it is admitted; without addresses, whatever anybody sends by IPv4."""
            ...

        def repair(self) -> None:
            """What somebody else has taken away of all this is put back, as far as what is left tells. Idempotent."""
            ...
else:

    class PacketFilter:  # the cold half never needs the Protocol itself
        pass


class PortMap:
    """One port of the node that leads to one of the pod."""

    __slots__ = ("container_port", "host_ip", "host_port", "protocol")

    def __init__(self, protocol: str, host_port: int, container_port: int, host_ip: str = "") -> None:
        """`protocol`: tcp, udp or sctp; `host_ip`: an address of the node, "" for all, 0.0.0.0 or :: for all of a family."""
        self.protocol, self.host_port, self.container_port, self.host_ip = protocol, host_port, container_port, host_ip

    @property
    def key(self) -> tuple[str, int, str]:
        """(protocol, host port, host address): what two maps cannot both have."""
        return self.protocol, self.host_port, self.host_ip

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PortMap) and (self.key, self.container_port) == (other.key, other.container_port)

    def __hash__(self) -> int:
        return hash((self.key, self.container_port))

    def __repr__(self) -> str:
        host = f"[{self.host_ip}]" if ":" in self.host_ip else self.host_ip or "*"
        return f"{self.protocol} {host}:{self.host_port} to {self.container_port}"


class PortOptions:
    """How ports are mapped."""

    __slots__ = ("conditions_v4", "conditions_v6", "is_masquerading", "mark_bit", "mark_chain", "masquerades_all")

    def __init__(
        self,
        *,
        is_masquerading: bool = True,
        masquerades_all: bool = False,
        mark_bit: int = 13,
        mark_chain: str = "",
        conditions_v4: list[str] | None = None,
        conditions_v6: list[str] | None = None,
    ) -> None:
        """`is_masquerading`: what comes from the pod's own network or from a loopback address, whose answers would not pass
        by the node, has the node's address; `masquerades_all`: whatever comes. Such packets carry the mark `mark_bit`, unless
        `mark_chain` marks them. `conditions_…`: what else a packet must fulfil, in the words of the driver's own tool."""
        self.is_masquerading, self.masquerades_all = is_masquerading, masquerades_all
        self.mark_bit, self.mark_chain = mark_bit, mark_chain
        self.conditions_v4, self.conditions_v6 = conditions_v4 or [], conditions_v6 or []


class AdmissionOptions:
    """What else is said about a pod's traffic."""

    __slots__ = ("admin_chain", "bridge", "is_isolated")

    def __init__(self, *, admin_chain: str = "", bridge: str = "", is_isolated: bool = False) -> None:
        """`admin_chain`: a chain of the administrator's that has the first word; `bridge`: the pods' bridge, to which other
        such bridges do not get through; `is_isolated`: nor do pods of the same bridge to each other."""
        self.admin_chain, self.bridge, self.is_isolated = admin_chain, bridge, is_isolated
