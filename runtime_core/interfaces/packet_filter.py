"""The contract of `trivet.packetfilter`: address translation for pods, in one transaction per call. Cold."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class PacketFilter(Protocol):
        """Works in the network namespace of the calling thread. The contract: runtime_core/testing/packet_filter_contract.py."""

        def masquerade(self, addresses: list[str], owner: str) -> None:
            """Traffic from each of `addresses` ("10.1.0.5/16") to outside its network leaves with the
            node's address. `owner` ("<network> <container id> <interface>") names who asked; an address that
            an earlier owner left behind is its own now. Idempotent."""
            ...

        def unmasquerade(self, owner: str, addresses: list[str]) -> None:
            """Undo it. Idempotent; without addresses, what `owner` has is looked up. What has another owner stays."""
            ...

        def masqueraded(self) -> list[tuple[str, str]]:
            """(address, owner) of all."""
            ...
else:

    class PacketFilter:  # the cold half never needs the Protocol itself
        pass
