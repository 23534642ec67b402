"""What stands in nf_tables, whoever has made it: base chains, rules and their expressions. Cold, no policy."""

from __future__ import annotations

import struct

from runtime_core.kernel import netlink
from runtime_core.network import nftables as nft

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime_core.kernel.netlink import Message

_GETCHAIN, _GETRULE, _GETSET, _GETELEMENT = 4, 7, 10, 13
#: flags, type and length of the key, policy, description, what nft notes: attribute of a set → the flag of nested ones
_SET_PARTS = {3: 0, 4: 0, 5: 0, 8: 0, 9: nft.NESTED, 13: 0}
_INET = 1
_NAMES = {nft.IPV4: "ip", nft.IPV6: "ip6", _INET: "inet"}


class BaseChain:
    """A chain that packets enter at a hook of the kernel."""

    __slots__ = ("family", "hook", "name", "policy", "table")

    def __init__(self, payload: bytes) -> None:
        """`policy` is 0 (drop) or 1 (accept); `hook` is -1 of a chain that no packet enters by itself."""
        attributes = netlink.decode(payload[4:])
        hook = netlink.decode(attributes.get(4, b"")).get(1)
        self.family = payload[0]
        self.table, self.name = (attributes[key].rstrip(b"\0").decode() for key in (1, 3))
        self.hook = int.from_bytes(hook, "big") if hook else -1
        self.policy = int.from_bytes(attributes.get(5, b"\1"), "big")

    def __str__(self) -> str:
        return f"chain {self.name} of table {_NAMES.get(self.family, self.family)} {self.table}"

    @property
    def versions(self) -> tuple[int, ...]:
        """Of IP, whose packets it sees."""
        return {nft.IPV4: (4,), nft.IPV6: (6,), _INET: (4, 6)}.get(self.family, ())


class Expression:
    """One of a rule: its name and attributes (include/uapi/linux/netfilter/nf_tables.h)."""

    __slots__ = ("_attributes", "_data", "name")

    def __init__(self, data: bytes) -> None:
        attributes = netlink.decode(data)
        self._data = attributes.get(2, b"")
        self.name = attributes[1].rstrip(b"\0").decode()
        self._attributes = netlink.decode(attributes.get(2, b""))

    def has(self, key: int) -> bool:
        """Whether the expression has this attribute."""
        return key in self._attributes

    def raw(self, key: int) -> bytes:
        """An attribute as it is, b"" when it is missing."""
        return self._attributes.get(key, b"")

    def number(self, key: int) -> int:
        """An attribute in network order, 0 when it is missing."""
        return int.from_bytes(self.raw(key), "big")

    def text(self, key: int) -> str:
        return self.raw(key).rstrip(b"\0").decode()

    def data(self, key: int) -> bytes:
        """A value within a nested attribute (NFTA_DATA_VALUE)."""
        return netlink.decode(self.raw(key)).get(1, b"")

    def copy(self) -> list[tuple[int, bytes | str]]:
        """For a rule of one's own."""
        return [(1, self.name), (2 | nft.NESTED, self._data)]

    def verdict(self) -> tuple[int, str] | None:
        """(code, chain) of an immediate one that is a verdict."""
        nested = netlink.decode(netlink.decode(self.raw(2)).get(2, b""))
        if 1 not in nested:
            return None
        return struct.unpack("!i", nested[1])[0], nested.get(2, b"").rstrip(b"\0").decode()


class ReadRule:
    """A rule: its handle, by which it can be removed, its comment, and its expressions."""

    __slots__ = ("comment", "expressions", "handle")

    def __init__(self, payload: bytes) -> None:
        attributes = netlink.decode(payload[4:])
        self.handle = int.from_bytes(attributes[3], "big")
        self.comment = attributes.get(7, b"")[2:].rstrip(b"\0").decode(errors="replace")
        self.expressions = [Expression(item) for _kind, item in netlink.items(attributes.get(4, b""))]


def chain(sock: nft.Socket, family: int, table: str, name: str) -> BaseChain | None:
    """One of them by its name; None where there is none."""
    payloads = nft.query(sock, _message(_GETCHAIN, family, [(1, table), (3, name)]))
    return BaseChain(payloads[0]) if payloads else None


def chains_at(sock: nft.Socket, hook: int) -> list[BaseChain]:
    """All base chains for IP at `hook`, of all tables."""
    listed = []
    for family in (nft.IPV4, nft.IPV6, _INET):
        listed += [BaseChain(payload) for payload in nft.query(sock, _message(_GETCHAIN, family, [], netlink.DUMP))]
    return [one for one in listed if one.hook == hook]


def rules(sock: nft.Socket, family: int, table: str, name: str) -> list[ReadRule]:
    """Of a chain, in order; [] without it."""
    wanted = _message(_GETRULE, family, [(1, table), (2, name)], netlink.DUMP)
    return [ReadRule(payload) for payload in nft.query(sock, wanted)]


def set_parts(sock: nft.Socket, family: int, table: str, name: str) -> tuple[list[tuple[int, bytes]], bytes]:
    """What a set is (NFTA_SET_…, without its name), and its elements (NFTA_SET_ELEM_LIST_ELEMENTS), for a copy of it."""
    attributes = netlink.decode(nft.query(sock, _message(_GETSET, family, [(1, table), (2, name)]))[0][4:])
    kept = [(key | _SET_PARTS[key], value) for key, value in attributes.items() if key in _SET_PARTS]
    listed = nft.query(sock, _message(_GETELEMENT, family, [(1, table), (2, name)], netlink.DUMP))
    return kept, b"".join(netlink.decode(payload[4:]).get(3, b"") for payload in listed)


def _message(kind: int, family: int, attributes: list[tuple[int, str]], flags: int = 0) -> Message:
    return netlink.Message(10 << 8 | kind, struct.pack("!BBH", family, 0, 0), attributes, flags)
