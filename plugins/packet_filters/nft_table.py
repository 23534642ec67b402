"""A table of nftables in which every element has an owner and is removed with it.

    table ip NAME
      chain PART              # a part that is in use: what belongs to it has names that start so
      set, map, chain PART-…
      chain own-<hash>        # what one attachment has: see nft_record
      chain waiting           # who comes after whom: see nft_claims

A record jumps to the parts that its elements stand on. By that count the last owner of a part, and it alone, takes the
part away, in the transaction that takes away its record. What was read is kept true by the generation that it names. Cold.
"""

from __future__ import annotations

from plugins.packet_filters.nft_claims import Claims
from plugins.packet_filters.nft_record import (
    Attachment,
    Element,
    check_owner,
    is_same,
    own_chain,
    read_all,
    read_attachment,
    record,
)
from runtime_core.errors import Unavailable
from runtime_core.network import nftables as nft

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from plugins.packet_filters.nft_claims import Wider
    from runtime_core.kernel.netlink import Message
    from runtime_core.network.nftables import Socket


#: of a rule, at the most: so many inline sets it may have
_MOST_EXPRESSIONS = 128


class Part:
    """Sets and chains that elements need; its sets, chains and shared elements are named "<name>-…"."""

    __slots__ = ("chains", "is_complete", "name", "sets", "shared")

    def __init__(
        self,
        name: str,
        *,
        sets: dict[str, tuple[list[int], list[int] | None]] | None = None,
        chains: dict[str, tuple[str, int, int, list[list[Any]]]] | None = None,
        shared: list[Element] | None = None,
        is_complete: bool = True,
    ) -> None:
        """`sets`: key and data types; `chains`: kind, hook, priority and rules; `shared`: elements that go with the part.
        One that is not complete has rules that nobody should make."""
        self.name, self.sets, self.chains, self.shared, self.is_complete = (
            name,
            sets or {},
            chains or {},
            shared or [],
            is_complete,
        )


def _no_wider(_element: Element) -> Element | None:
    return None


class Table:
    """Of this name, in each family. `part` makes a Part from its name, at least with the names of its sets and chains;
    `wider` tells the element that leads away the packets of another one, too, when somebody else has it first."""

    def __init__(self, name: str, part: Callable[[int, str], Part], wider: Wider = _no_wider) -> None:
        self.name, self._part, self._wider = name, part, wider

    def put(self, sock: Socket, family: int, owner: str, parts: list[Part], elements: list[Element]) -> None:
        """All of it and, of this owner, nothing else; for an element that another has it waits. One transaction, which as
        a rule finds everything as expected; only one that does not looks at what is there."""
        check_owner(owner)
        if self._is_put_at_once(sock, family, owner, parts, elements):
            return
        wanted = Attachment(family, owner, [part.name for part in parts], elements)
        for _attempt in range(nft.ATTEMPTS):
            generation = sock.generation()
            earlier, claims = self.find(sock, family, owner), self._claims(sock, family)
            messages = [*self._base_messages(family, parts), *record(family, self.name, wanted, must_be_new=False)]
            messages += claims.change(owner, earlier, elements)
            unused = [name for name in earlier.parts if name not in wanted.parts] if earlier else []
            messages += [*claims.end_queue(), *self._ends(sock, family, unused)]
            if sock.try_transact(messages, generation, nft.CHANGED):
                return
        raise Unavailable(f"nftables: other changes kept interrupting the change of table {self.name}")

    def remove(self, sock: Socket, owner: str) -> bool:
        """Everything of this owner, and what nobody needs then; False when it had nothing. Idempotent."""
        had = [self._remove_from(sock, family, owner) for family in nft.ADDRESS]
        return any(had)

    def find(self, sock: Socket, family: int, owner: str) -> Attachment | None:
        """What `owner` has in this address family; None when it has nothing."""
        return read_attachment(sock, family, self.name, own_chain(owner))

    def everything(self, sock: Socket) -> list[Attachment]:
        """Of both families."""
        return [attachment for family in nft.ADDRESS for attachment in read_all(sock, family, self.name)]

    def missing(self, sock: Socket, family: int, owner: str, parts: list[Part], elements: list[Element]) -> list[Element | Part]:
        """What is not there as `put` made it; what it rightly waits for is not lacking."""
        missing: list[Element | Part] = []
        for part in parts:
            rules = {name: len(chain[3]) for name, chain in part.chains.items()}
            present = {name: nft.chain_uses(sock, family, self.name, f"{part.name}-{name}") for name in rules}
            if present != rules or nft.chain_uses(sock, family, self.name, part.name) is None:
                missing.append(part)
        claims = self._claims(sock, family)
        for element in elements:
            found = nft.find_element(sock, family, self.name, element.in_set, element.key)
            stands = found is not None and found[0] == element.data and is_same(found[1], owner)
            if not stands and not claims.is_queued_correctly(element, owner):
                missing.append(element)
        return missing

    def repair(self, sock: Socket) -> None:
        """Restore what attachments lack, as far as their records tell."""
        for attachment in self.everything(sock):
            for _attempt in range(nft.ATTEMPTS):
                generation = sock.generation()
                messages = self._repair_messages(sock, attachment)
                if not messages or sock.try_transact(messages, generation):
                    break

    def _is_put_at_once(self, sock: Socket, family: int, owner: str, parts: list[Part], elements: list[Element]) -> bool:
        """As it is when nobody else wants anything of it. Parts are asked for before: a transaction that fails costs an RCU
        grace period."""
        wider = [one for one in map(self._wider, elements) if one is not None]
        generation = sock.generation() if wider else None
        names = [part.name for part in parts]
        if not nft.has_chains(sock, family, self.name, names):
            return False
        if any(nft.find_element(sock, family, self.name, one.in_set, one.key) for one in wider):
            return False
        messages = record(family, self.name, Attachment(family, owner, names, elements), must_be_new=True)
        messages += [nft.element(family, self.name, e.in_set, e.key, e.data, owner, must_be_new=True) for e in elements]
        return sock.try_transact(messages, generation)

    def _repair_messages(self, sock: Socket, attachment: Attachment) -> list[Message]:
        family, owner = attachment.family, attachment.owner
        parts = [self._part(family, name) for name in attachment.parts]
        missing = self.missing(sock, family, owner, parts, attachment.elements)
        incomplete = [part for part in missing if isinstance(part, Part) and part.is_complete]
        incomplete += [part for part in parts if any(not self._has(sock, family, item) for item in part.shared)]
        messages = self._base_messages(family, incomplete) if incomplete else []
        if any(isinstance(item, Element) for item in missing):
            messages += self._claims(sock, family).change(owner, attachment, attachment.elements)
        return messages

    def _claims(self, sock: Socket, family: int) -> Claims:
        return Claims(sock, family, self.name, self._wider)

    def _base_messages(self, family: int, parts: list[Part]) -> list[Message]:
        """Messages that create all of `parts`; repeated, they change nothing."""
        messages = [nft.table(family, self.name)]
        for part in parts:
            messages.append(nft.chain(family, self.name, part.name))
            for name, (key, data) in part.sets.items():
                messages.append(nft.new_set(family, self.name, f"{part.name}-{name}", key, data))
        for part in parts:
            for name, (kind, hook, priority, rules) in part.chains.items():
                full = f"{part.name}-{name}"
                messages.append(nft.base_chain(family, self.name, full, kind, hook, priority))
                messages.append(nft.flush_chain(family, self.name, full))
                for expressions in rules:
                    messages += nft.rule_with_sets(family, self.name, full, expressions, len(messages) * _MOST_EXPRESSIONS)
            messages += [nft.element(family, self.name, e.in_set, e.key, e.data, "") for e in part.shared]
        return messages

    def _remove_from(self, sock: Socket, family: int, owner: str) -> bool:
        for _attempt in range(nft.ATTEMPTS):
            generation = sock.generation()
            attachment = self.find(sock, family, owner)
            if attachment is None:
                return False
            if sock.try_transact(self._removal(sock, attachment), generation):
                return True
        raise Unavailable(f"nftables: other changes kept interrupting the change of table {self.name}")

    def _removal(self, sock: Socket, attachment: Attachment) -> list[Message]:
        """Of an attachment, of parts that nobody else uses, and of the table with the last of them."""
        family, claims = attachment.family, self._claims(sock, attachment.family)
        messages = claims.change(attachment.owner, attachment, [])
        ends = [nft.remove_chain(family, self.name, own_chain(attachment.owner)), *claims.end_queue()]
        ends += self._ends(sock, family, attachment.parts)
        is_last = nft.table_uses(sock, family, self.name) == nft.removed_objects(ends)
        return [*messages, *ends, *([nft.remove_table(family, self.name)] if is_last else [])]

    def _ends(self, sock: Socket, family: int, names: list[str]) -> list[Message]:
        """Of those of an attachment's parts to which no other record jumps."""
        lone = [name for name in reversed(names) if nft.chain_uses(sock, family, self.name, name) == 1]
        return [message for name in lone for message in self._teardown(sock, family, self._part(family, name))]

    def _teardown(self, sock: Socket, family: int, part: Part) -> list[Message]:
        """Of what is there: an administrator may have been quicker with some of it."""
        chains = [name for name in (f"{part.name}-{suffix}" for suffix in part.chains) if self._has_chain(sock, family, name)]
        sets = [name for name in (f"{part.name}-{suffix}" for suffix in part.sets) if nft.has_set(sock, family, self.name, name)]
        shared = [suffix for suffix in part.shared if self._has(sock, family, suffix)]
        return [
            nft.remove_chain(family, self.name, part.name),
            *(nft.remove_element(family, self.name, suffix.in_set, suffix.key) for suffix in shared),
            *(nft.remove_chain(family, self.name, name) for name in chains),
            *(nft.remove_set(family, self.name, name) for name in sets),
        ]

    def _has(self, sock: Socket, family: int, element: Element) -> bool:
        return nft.find_element(sock, family, self.name, element.in_set, element.key) is not None

    def _has_chain(self, sock: Socket, family: int, name: str) -> bool:
        return nft.chain_uses(sock, family, self.name, name) is not None
