"""Who has an element that several attachments want: the first, and when that one goes the next of those that wait. Cold.

    chain waiting
      jump own-<hash> comment "<owner>"     # in the order in which they came; what they want is in their own chains

An element waits also while a wider one, which leads away the same packets, is somebody else's. What is in the table is
read here; a caller makes the transaction depend on the generation of what was read.
"""

from __future__ import annotations

from plugins.packet_filters.nft_record import is_same, own_chain, read_attachment
from runtime_core.network import nft_expressions as nfx
from runtime_core.network import nftables as nft

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from plugins.packet_filters.nft_record import Attachment, Element
    from runtime_core.kernel.netlink import Message
    from runtime_core.network.nftables import Socket

    Wider = Callable[[Element], Element | None]

WAITING = "waiting"


class Claims:
    """The claims of one family in one table, as they are read and as the messages made here will change them."""

    def __init__(self, sock: Socket, family: int, table: str, wider: Wider) -> None:
        self._sock, self._family, self._table, self._wider = sock, family, table, wider
        self._holders: dict[tuple[str, bytes], str | None] = {}
        #: own chain → handle of the rule that says that it waits, in order
        self._waiting = {target: handle for handle, _owner, target in nft.rule_handles(sock, family, table, WAITING)}
        self._has_queue = bool(self._waiting)

    def holder(self, element: Element) -> str | None:
        """The owner that the table names; None where nobody has it."""
        if element.place not in self._holders:
            found = nft.find_element(self._sock, self._family, self._table, element.in_set, element.key)
            self._holders[element.place] = found[1] if found else None
        return self._holders[element.place]

    def is_queued_correctly(self, element: Element, owner: str) -> bool:
        """Whether `owner` lacks `element` because it is another's turn, and is in the queue for it."""
        return own_chain(owner) in self._waiting and self._is_anothers(element, owner)

    def change(self, owner: str, earlier: Attachment | None, elements: list[Element]) -> list[Message]:
        """From what `owner` had to `elements`: what it keeps stays its own, what it gives up goes to who waits for it, what
        is new it has where nobody else does."""
        had = {e.place: e for e in earlier.elements if is_same(self.holder(e) or "", owner)} if earlier else {}
        messages = [self._remove(element) for element in had.values()]
        messages += self._assign_elements(owner, [element for element in elements if element.place in had])
        for chain in [chain for chain in self._waiting if chain != own_chain(owner)]:
            waiter = read_attachment(self._sock, self._family, self._table, chain)
            if waiter is not None:
                messages += self._assign_elements(waiter.owner, waiter.elements)
                messages += self._queue(waiter.owner, waiter.elements)
        messages += self._assign_elements(owner, [element for element in elements if element.place not in had])
        return messages + self._queue(owner, elements)

    def end_queue(self) -> list[Message]:
        """After the changes: the queue goes with the last of it."""
        return [nft.remove_chain(self._family, self._table, WAITING)] if self._has_queue and not self._waiting else []

    def _assign_elements(self, owner: str, elements: list[Element]) -> list[Message]:
        messages = []
        for element in elements:
            if is_same(self.holder(element) or "", owner) or self._is_anothers(element, owner):
                continue
            if self.holder(element) is not None:  # of an owner without a record
                messages.append(self._remove(element))
            messages.append(nft.element(self._family, self._table, element.in_set, element.key, element.data, owner))
            self._holders[element.place] = owner
        return messages

    def _remove(self, element: Element) -> Message:
        self._holders[element.place] = None
        return nft.remove_element(self._family, self._table, element.in_set, element.key)

    def _queue(self, owner: str, elements: list[Element]) -> list[Message]:
        """The owner's place in it, which it has while it waits for anything."""
        chain = own_chain(owner)
        waits = any(self._is_anothers(element, owner) for element in elements)
        if waits and chain not in self._waiting:
            self._waiting[chain] = 0
            begin = nft.chain(self._family, self._table, WAITING)
            return [begin, nft.rule(self._family, self._table, WAITING, nfx.jump(chain), owner)]
        if not waits and chain in self._waiting:
            return [nft.remove_rule(self._family, self._table, WAITING, self._waiting.pop(chain))]
        return []

    def _is_anothers(self, element: Element, owner: str) -> bool:
        wider = self._wider(element)
        holders = [self.holder(one) for one in (element, wider) if one is not None]
        return any(one is not None and not is_same(one, owner) and self._is_recorded(one) for one in holders)

    def _is_recorded(self, owner: str) -> bool:
        return nft.has_chains(self._sock, self._family, self._table, [own_chain(owner)])
