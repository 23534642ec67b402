"""A table of nftables in which everything has an owner, and from which everything goes with its owners.

    table ip NAME
      chain PART                                     # a part that is in use: what belongs to it has names that start so
      set, map, chain PART-…
      chain own-<hash of container id and interface> # what one attachment has
        jump PART comment "<network> <container id> <interface>"
        return comment "<set> <key> <data>"

The packets never see the chains `own-…`: they are the record that DEL, CHECK and GC go by, whatever the configuration
says by then. The kernel refuses to delete a chain that something jumps to: that is how the last owner of a part, and it
alone, takes the part away. What was read is kept true by the generation that the transaction names. Cold.
"""

from __future__ import annotations

import hashlib

from runtime_core.errors import InvalidArgument, Unavailable
from runtime_core.network import nft_expressions as nfx
from runtime_core.network import nftables as nft

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime_core.kernel.netlink import Message
    from runtime_core.network.nftables import Socket


class Element:
    """One element of a set or map (`data` is b"" in a set)."""

    __slots__ = ("data", "in_set", "key")

    def __init__(self, in_set: str, key: bytes, data: bytes = b"") -> None:
        self.in_set, self.key, self.data = in_set, key, data

    def __str__(self) -> str:
        return f"{self.in_set} {self.key.hex()} {self.data.hex()}".rstrip()

    @classmethod
    def read(cls, text: str) -> Element:
        in_set, key, *data = text.split(" ")
        return cls(in_set, bytes.fromhex(key), bytes.fromhex("".join(data)))


class Part:
    """What elements stand on; its sets, chains and shared elements are named "<name>-…"."""

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


class Attachment:
    """What one owner has in one family."""

    __slots__ = ("elements", "family", "owner", "parts")

    def __init__(self, family: int, owner: str, parts: list[str], elements: list[Element]) -> None:
        self.family, self.owner, self.parts, self.elements = family, owner, parts, elements


class Table:
    """Of this name, in each family. `part` makes a Part from its name, at least with the names of its sets and chains."""

    def __init__(self, name: str, part: Any) -> None:
        self.name, self._part = name, part

    def put(self, sock: Socket, family: int, owner: str, parts: list[Part], elements: list[Element]) -> None:
        """All of it and, of this owner, nothing else; an element that another had is the owner's now. One transaction,
        which as a rule finds everything as expected; only one that does not looks at what is there."""
        check_owner(owner)
        wanted = self._record(family, owner, parts, elements)
        wanted += [nft.element(family, self.name, e.in_set, e.key, e.data, owner, must_be_new=True) for e in elements]
        # Asked before, for a transaction that fails costs an RCU grace period.
        if nft.has_chains(sock, family, self.name, [part.name for part in parts]) and sock.is_done(wanted):
            return
        for _attempt in range(nft.ATTEMPTS):
            generation = sock.generation()
            earlier = self.find(sock, family, owner)
            messages = [*self._foundation(family, parts), *self._room(sock, family, earlier, elements), *wanted]
            if sock.is_done(messages, generation, nft.CHANGED):
                if earlier is not None:
                    self._clear(sock, earlier)
                return
        raise Unavailable(f"nftables: other changes kept interrupting that of table {self.name}")

    def remove(self, sock: Socket, owner: str) -> bool:
        """Everything of this owner, and what nobody needs then; False when it had nothing. Idempotent."""
        had = [self._remove_from(sock, family, owner) for family in nft.ADDRESS]
        return any(had)

    def find(self, sock: Socket, family: int, owner: str) -> Attachment | None:
        chain = _chain(owner)
        listed = _attachments(family, nft.rules(sock, family, self.name, chain))
        return listed.get(chain)

    def everything(self, sock: Socket) -> list[Attachment]:
        """Of both families."""
        return [one for family in nft.ADDRESS for one in _attachments(family, nft.rules(sock, family, self.name)).values()]

    def lacking(self, sock: Socket, family: int, owner: str, parts: list[Part], elements: list[Element]) -> list[Element | Part]:
        """What is not there as `put` made it."""
        missing: list[Element | Part] = []
        for part in parts:
            rules = {name: len(chain[3]) for name, chain in part.chains.items()}
            present = {name: nft.chain_uses(sock, family, self.name, f"{part.name}-{name}") for name in rules}
            if present != rules or nft.chain_uses(sock, family, self.name, part.name) is None:
                missing.append(part)
        for element in elements:
            found = nft.find_element(sock, family, self.name, element.in_set, element.key)
            if found is None or found[0] != element.data or not is_same(found[1], owner):
                missing.append(element)
        return missing

    def mend(self, sock: Socket) -> None:
        """What attachments lack is put back, as far as it is known from their records."""
        for attachment in self.everything(sock):
            for _attempt in range(nft.ATTEMPTS):
                generation = sock.generation()
                messages = self._mending(sock, attachment)
                if not messages or sock.is_done(messages, generation):
                    break

    def _mending(self, sock: Socket, attachment: Attachment) -> list[Message]:
        family, owner = attachment.family, attachment.owner
        parts = [self._part(family, name) for name in attachment.parts]
        missing = self.lacking(sock, family, owner, parts, attachment.elements)
        lame = [part for part in missing if isinstance(part, Part) and part.is_complete]
        lame += [part for part in parts if any(self._holder(sock, family, one) is None for one in part.shared)]
        messages = self._foundation(family, lame) if lame else []
        for one in missing:
            if isinstance(one, Element) and self._holder(sock, family, one) is None:
                messages.append(nft.element(family, self.name, one.in_set, one.key, one.data, owner))
        return messages

    def _record(self, family: int, owner: str, parts: list[Part], elements: list[Element]) -> list[Message]:
        chain = _chain(owner)
        messages = [nft.chain(family, self.name, chain, must_be_new=True)]
        messages += [nft.rule(family, self.name, chain, nfx.jump(part.name), owner) for part in parts]
        return messages + [nft.rule(family, self.name, chain, nfx.leave(), str(element)) for element in elements]

    def _foundation(self, family: int, parts: list[Part]) -> list[Message]:
        """Everything that `parts` are made of; said again, it changes nothing."""
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
                messages += [nft.rule(family, self.name, full, expressions) for expressions in rules]
            messages += [nft.element(family, self.name, e.in_set, e.key, e.data, "") for e in part.shared]
        return messages

    def _room(self, sock: Socket, family: int, earlier: Attachment | None, elements: list[Element]) -> list[Message]:
        """What takes away the owner's earlier attachment, and elements that others left behind."""
        messages, removed = self._removal(sock, earlier)
        known = {(one.in_set, one.key) for one in removed}
        for one in elements:
            if (one.in_set, one.key) not in known and self._holder(sock, family, one) is not None:
                messages.append(nft.remove_element(family, self.name, one.in_set, one.key))
        return messages

    def _holder(self, sock: Socket, family: int, element: Element) -> str | None:
        found = nft.find_element(sock, family, self.name, element.in_set, element.key)
        return found[1] if found else None

    def _removal(self, sock: Socket, attachment: Attachment | None) -> tuple[list[Message], list[Element]]:
        """What takes an attachment away, and its elements that nobody else has taken over since."""
        if attachment is None:
            return [], []
        family = attachment.family
        still = [e for e in attachment.elements if is_same(self._holder(sock, family, e) or "", attachment.owner)]
        messages = [nft.remove_element(family, self.name, e.in_set, e.key) for e in still]
        return [*messages, nft.remove_chain(family, self.name, _chain(attachment.owner))], still

    def _remove_from(self, sock: Socket, family: int, owner: str) -> bool:
        for _attempt in range(nft.ATTEMPTS):
            generation = sock.generation()
            attachment = self.find(sock, family, owner)
            if attachment is None:
                return False
            if sock.is_done(self._removal(sock, attachment)[0], generation):
                self._clear(sock, attachment)
                return True
        raise Unavailable(f"nftables: other changes kept interrupting that of table {self.name}")

    def _clear(self, sock: Socket, attachment: Attachment) -> None:
        """The parts that nobody uses any more, and the table with the last of them. Who came in the meantime is welcome."""
        family = attachment.family
        for name in reversed(attachment.parts):
            if nft.chain_uses(sock, family, self.name, name) == 0:
                sock.is_done(self._teardown(sock, family, self._part(family, name)))
        if nft.table_uses(sock, family, self.name) == 0:
            sock.is_done([nft.remove_table(family, self.name)])

    def _teardown(self, sock: Socket, family: int, part: Part) -> list[Message]:
        """Of what is there: an administrator may have been quicker with some of it."""
        chains = [name for name in (f"{part.name}-{one}" for one in part.chains) if self._has_chain(sock, family, name)]
        sets = [name for name in (f"{part.name}-{one}" for one in part.sets) if nft.has_set(sock, family, self.name, name)]
        shared = [one for one in part.shared if self._holder(sock, family, one) is not None]
        return [
            nft.remove_chain(family, self.name, part.name),
            *(nft.remove_element(family, self.name, one.in_set, one.key) for one in shared),
            *(nft.remove_chain(family, self.name, name) for name in chains),
            *(nft.remove_set(family, self.name, name) for name in sets),
        ]

    def _has_chain(self, sock: Socket, family: int, name: str) -> bool:
        return nft.chain_uses(sock, family, self.name, name) is not None


def is_same(owner: str, other: str) -> bool:
    """Of one attachment: container and interface decide, for a network can be renamed."""
    return owner.split(" ")[1:] == other.split(" ")[1:]


def check_owner(owner: str) -> None:
    if len(owner.encode()) > nft.MOST_COMMENT:
        raise InvalidArgument(
            f"name: {owner.split(' ')[0]!r} and the container's id are longer than {nft.MOST_COMMENT} bytes together"
        )


def _chain(owner: str) -> str:
    return "own-" + hashlib.sha256(" ".join(owner.split(" ")[1:]).encode()).hexdigest()[:20]


def _attachments(family: int, rules: list[tuple[str, str, str]]) -> dict[str, Attachment]:
    found: dict[str, Attachment] = {}
    for chain, comment, target in rules:
        if not chain.startswith("own-"):
            continue
        if target:
            one = found.setdefault(chain, Attachment(family, comment, [], []))
            one.parts.append(target)
        elif chain in found:
            found[chain].elements.append(Element.read(comment))
    return found
