"""What one owner has in a table of nftables, as it stands written in a chain of that table. Cold.

    chain own-<hash of container id and interface>
      jump PART comment "<network> <container id> <interface>"
      return comment "<set> <key> <data>"

The packets never see these chains: they are the record that DEL, CHECK and GC go by, whatever the configuration says by then.
"""

from __future__ import annotations

import hashlib

from runtime_core.errors import InvalidArgument
from runtime_core.network import nft_expressions as nfx
from runtime_core.network import nftables as nft

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime_core.kernel.netlink import Message
    from runtime_core.network.nftables import Socket

_PREFIX = "own-"


class Element:
    """One element of a set or map (`data` is b"" in a set)."""

    __slots__ = ("data", "in_set", "key")

    def __init__(self, in_set: str, key: bytes, data: bytes = b"") -> None:
        self.in_set, self.key, self.data = in_set, key, data

    @property
    def place(self) -> tuple[str, bytes]:
        """What one alone can have."""
        return self.in_set, self.key

    def __str__(self) -> str:
        return f"{self.in_set} {self.key.hex()} {self.data.hex()}".rstrip()

    @classmethod
    def read(cls, text: str) -> Element:
        in_set, key, *data = text.split(" ")
        return cls(in_set, bytes.fromhex(key), bytes.fromhex("".join(data)))


class Attachment:
    """What one owner has, or waits for, in one family."""

    __slots__ = ("elements", "family", "owner", "parts")

    def __init__(self, family: int, owner: str, parts: list[str], elements: list[Element]) -> None:
        self.family, self.owner, self.parts, self.elements = family, owner, parts, elements


def own_chain(owner: str) -> str:
    """The chain of its record: container and interface decide, for a network can be renamed."""
    return _PREFIX + hashlib.sha256(" ".join(owner.split(" ")[1:]).encode()).hexdigest()[:20]


def is_same(owner: str, other: str) -> bool:
    """Of one attachment."""
    return owner.split(" ")[1:] == other.split(" ")[1:]


def check_owner(owner: str) -> None:
    """InvalidArgument for one that no comment can hold."""
    if len(owner.encode()) > nft.MOST_COMMENT:
        raise InvalidArgument(
            f"name: {owner.split(' ')[0]!r} and the container's id are longer than {nft.MOST_COMMENT} bytes together"
        )


def record(family: int, table: str, attachment: Attachment, *, must_be_new: bool) -> list[Message]:
    """What writes it down; an earlier record is written over unless `must_be_new`."""
    chain = own_chain(attachment.owner)
    messages = [nft.chain(family, table, chain, must_be_new=must_be_new)]
    messages += [] if must_be_new else [nft.flush_chain(family, table, chain)]
    messages += [nft.rule(family, table, chain, nfx.jump(part), attachment.owner) for part in attachment.parts]
    return messages + [nft.rule(family, table, chain, nfx.return_verdict(), str(element)) for element in attachment.elements]


def read_attachment(sock: Socket, family: int, table: str, chain: str) -> Attachment | None:
    """Of one record; None where there is none."""
    return _attachments(family, nft.rules(sock, family, table, chain)).get(chain)


def read_all(sock: Socket, family: int, table: str) -> list[Attachment]:
    """In the order in which they came."""
    return list(_attachments(family, nft.rules(sock, family, table)).values())


def _attachments(family: int, rules: list[tuple[str, str, str]]) -> dict[str, Attachment]:
    found: dict[str, Attachment] = {}
    for chain, comment, target in rules:
        if not chain.startswith(_PREFIX):
            continue
        if target:
            one = found.setdefault(chain, Attachment(family, comment, [], []))
            one.parts.append(target)
        elif chain in found:
            found[chain].elements.append(Element.read(comment))
    return found
