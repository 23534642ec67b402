"""Messages of nf_tables (include/uapi/linux/netfilter/nf_tables.h), and transactions of them. Cold, no policy."""

from __future__ import annotations

import _thread
import errno
import os
import socket
import struct

from runtime_core.kernel import netlink
from runtime_core.kernel.netlink import CREATE, EXCL, Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

IPV4, IPV6 = 2, 10
PREROUTING, FORWARD, OUTPUT, POSTROUTING = 0, 2, 3, 4
RAW, DSTNAT, FILTER, SRCNAT = -300, -100, 0, 100
#: types of set keys and map data (nft's own numbers, so that `nft list` prints them as they are meant)
PROTOCOL, SERVICE, INTERFACE_NAME = 12, 13, 41
ADDRESS = {IPV4: 7, IPV6: 8}
ADDRESS_BYTES = {IPV4: 4, IPV6: 16}
_SIZES = {PROTOCOL: 4, SERVICE: 4, INTERFACE_NAME: 16, ADDRESS[IPV4]: 4, ADDRESS[IPV6]: 16}
_CONCATENATED = 6
MOST_COMMENT = 250
JUMP = -3 & 0xFFFFFFFF
#: of attribute types whose values are attributes, where they are given as bytes
NESTED = 0x8000
#: the kernel makes a name of it
_INLINE = "__set%d"
_SUBSYSTEM = 10 << 8
_BEGIN, _END = 0x10, 0x11
_NEWTABLE, _GETTABLE, _DELTABLE, _NEWCHAIN, _GETCHAIN, _DELCHAIN = range(6)
_NEWRULE, _GETRULE, _DELRULE, _NEWSET, _GETSET, _DELSET = range(6, 12)
_NEWELEMENT, _GETELEMENT, _DELELEMENT, _NEWGENERATION, _GETGENERATION = range(12, 17)
_REMOVALS = frozenset(_SUBSYSTEM | kind for kind in (_DELTABLE, _DELCHAIN, _DELSET, _DELELEMENT))
_MAP, _VERDICT_TYPE = 8, 0xFFFFFF00
#: refuses to delete what is not empty
_NON_RECURSIVE = 0x100
_HEADER = struct.Struct("=IHHII")
_ERROR = 2
_RECEIVE = 1 << 17
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE, _BUFFER = 32, 33, 1 << 24
_SOL_NETLINK, _NETLINK_CAP_ACK = 270, 10
#: the refusals that somebody who was quicker causes; the one that says no more than that something has changed
LOST = (errno.ERESTART, errno.ENOENT, errno.EEXIST, errno.EBUSY, errno.EAGAIN)
CHANGED = (errno.ERESTART,)
#: every attempt that is lost was somebody else's success
ATTEMPTS = 1000


class Socket(netlink.Socket):
    """A netfilter socket with transactions that can be made to depend on what was read before."""

    def __init__(self, *, closes_later: bool = False) -> None:
        super().__init__(netlink.NETFILTER)
        self._closes_later = closes_later
        for option, forced in ((socket.SO_SNDBUF, _SO_SNDBUFFORCE), (socket.SO_RCVBUF, _SO_RCVBUFFORCE)):
            self._enlarge(option, forced)  # of a transaction with thousands of messages, and its refusals
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)

    def __enter__(self) -> Socket:
        return self

    def close(self) -> None:
        """Close the socket, with `closes_later` in a thread."""
        # The kernel lets go of a netfilter socket, of any, only when what was removed is freed, an RCU grace period later.
        if self._closes_later:
            try:
                _thread.start_new_thread(super().close, ())
                return
            except RuntimeError:  # no thread to be had: then now
                pass
        super().close()

    def _enlarge(self, option: int, forced: int) -> None:
        """Beyond the node's limit as root of the node may; in a user namespace up to it, and then by the plain option."""
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, forced, _BUFFER)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, option, _BUFFER)

    def generation(self) -> int:
        """A number that every transaction of this network namespace changes, whoever makes it."""
        payloads = self.request(_message(_GETGENERATION, 0, []))
        return int(struct.unpack("!I", netlink.decode(payloads[0][4:])[1])[0])

    def transact(self, messages: list[Message], generation: int | None = None) -> None:
        """All of `messages`, or none and the OSError of the first refusal; ERESTART when `generation` has passed."""
        scope = struct.pack("!BBH", 0, 0, 10)
        first = self._sequence + 1
        begin = Message(_BEGIN, scope, [(1, number(generation))] if generation is not None else [])
        # Refusals are always told; an answer to the last message alone tells that there were none.
        data = [self._encode(begin, 0), *(self._encode(message, 0) for message in messages[:-1])]
        data += [self._encode(messages[-1], netlink.ACK), self._encode(Message(_END, scope), 0)]
        self._closes_later = self._closes_later or any(message.kind in _REMOVALS for message in messages)
        self._socket.send(b"".join(data))
        self._await(first, first + len(messages))

    def try_transact(self, messages: list[Message], generation: int | None = None, lost: tuple[int, ...] = LOST) -> bool:
        """`transact`; False when it is refused for one of `lost`."""
        try:
            self.transact(messages, generation)
        except OSError as error:
            if error.errno not in lost:
                raise
            return False
        return True

    def _await(self, begin: int, last: int) -> None:
        """The answer to the last message, or to the beginning when that is refused; raises the first refusal."""
        refusal, is_answered = 0, False
        while not is_answered:
            data, position = self._socket.recv(_RECEIVE), 0
            while position + _HEADER.size <= len(data):
                length, kind, _flags, sequence, _port = _HEADER.unpack_from(data, position)
                if kind == _ERROR and begin <= sequence <= last:
                    code = -struct.unpack_from("=i", data, position + _HEADER.size)[0]
                    refusal = refusal or code
                    is_answered = is_answered or sequence == last or (sequence == begin and code != 0)
                position += length + -length % 4
        if refusal:
            raise OSError(refusal, f"nftables: {os.strerror(refusal)}")


def table(family: int, name: str) -> Message:
    """Make the table; one that is there stays."""
    return _message(_NEWTABLE, family, [(1, name)], CREATE)


def remove_table(family: int, name: str) -> Message:
    """EBUSY when there is anything in it."""
    return _message(_DELTABLE, family, [(1, name)], _NON_RECURSIVE)


def remove_whole_table(family: int, name: str) -> Message:
    """With all that is in it."""
    return _message(_DELTABLE, family, [(1, name)])


def chain(family: int, in_table: str, name: str, *, must_be_new: bool = False) -> Message:
    """Make a chain without a hook; one that is there stays, unless it `must_be_new`."""
    return _message(_NEWCHAIN, family, [(1, in_table), (3, name)], CREATE | (EXCL if must_be_new else 0))


def base_chain(family: int, in_table: str, name: str, kind: str, hook: int, priority: int) -> Message:
    """Make a chain of `kind` (filter, nat) at a hook, with this priority."""
    where = [(1, number(hook)), (2, struct.pack("!i", priority))]
    return _message(_NEWCHAIN, family, [(1, in_table), (3, name), (4, where), (7, kind)], CREATE)


def flush_chain(family: int, in_table: str, name: str) -> Message:
    """Delete all rules of a chain."""
    return _message(_DELRULE, family, [(1, in_table), (2, name)])


def remove_chain(family: int, in_table: str, name: str) -> Message:
    """With its rules; EBUSY when something jumps to it."""
    return _message(_DELCHAIN, family, [(1, in_table), (3, name)])


def remove_rule(family: int, in_table: str, in_chain: str, handle: int) -> Message:
    """One rule by its handle; ENOENT when it has gone."""
    return _message(_DELRULE, family, [(1, in_table), (2, in_chain), (3, struct.pack("!Q", handle))])


def rule(family: int, in_table: str, in_chain: str, expressions: list[Any], comment: str = "") -> Message:
    """Append a rule of these expressions (nft_expressions.py)."""
    attributes: list[Any] = [(1, in_table), (2, in_chain), (4, [(1, expression) for expression in expressions])]
    if comment:
        attributes.append((7, _comment(comment)))
    return _message(_NEWRULE, family, attributes, CREATE | netlink.APPEND)


class InlineSet:
    """Among the expressions of a rule: what is loaded is in a set that only this rule knows."""

    __slots__ = ("attributes", "elements", "flags", "register")

    def __init__(self, attributes: list[tuple[int, bytes]], elements: bytes, register: int, flags: int) -> None:
        """As `nft_reading.set_parts` has them; the register that is looked up, and flags (1: it is not in the set)."""
        self.attributes, self.elements, self.register, self.flags = attributes, elements, register, flags


def rule_with_sets(family: int, in_table: str, in_chain: str, expressions: list[Any], first: int) -> list[Message]:
    """The rule after its inline sets; `first` of the numbers that no other set of the transaction may have."""
    messages, plain = [], []
    for identity, one in enumerate(expressions, first):
        if isinstance(one, InlineSet):
            named = [(1, in_table), (2, _INLINE)]
            messages.append(_message(_NEWSET, family, [*named, *one.attributes, (10, number(identity))], CREATE))
            listed = [*named, (3 | NESTED, one.elements), (4, number(identity))]
            messages.append(_message(_NEWELEMENT, family, listed, CREATE))
            lookup = [(1, _INLINE), (2, number(one.register)), (4, number(identity)), (5, number(one.flags))]
            one = [(1, "lookup"), (2, lookup)]
        plain.append(one)
    return [*messages, rule(family, in_table, in_chain, plain)]


def new_set(family: int, in_table: str, name: str, key: list[int], data: list[int] | None = None) -> Message:
    """Of concatenated `key` types; a map when it has `data` types, whose data is a verdict when that is []."""
    attributes: list[Any] = [(1, in_table), (2, name), (4, number(_type(key))), (5, number(_size(key))), (10, number(1))]
    if key == [INTERFACE_NAME]:
        attributes.append((13, struct.pack("=BBI", 0, 4, 1)))  # the byte order of keys, which nft wants to know of names
    if data is not None:
        attributes += [(3, number(_MAP)), (6, number(_type(data) if data else _VERDICT_TYPE))]
        attributes += [(7, number(_size(data)))] if data else []
    return _message(_NEWSET, family, attributes, CREATE)


def remove_set(family: int, in_table: str, name: str, *, must_be_empty: bool = False) -> Message:
    """Delete a set or map; EBUSY when it `must_be_empty` and is not."""
    return _message(_DELSET, family, [(1, in_table), (2, name)], _NON_RECURSIVE if must_be_empty else 0)


def element(
    family: int, in_table: str, in_set: str, key: bytes, data: bytes | str, comment: str, *, must_be_new: bool = False
) -> Message:
    """key → data; data that is text is a chain to jump to, b"" for the element of a set."""
    item: list[tuple[int, Any]] = [(1, [(1, key)])]
    if isinstance(data, str):
        item.append((2, [(2, [(1, number(JUMP)), (2, data)])]))
    elif data:
        item.append((2, [(1, data)]))
    if comment:
        item.append((6, _comment(comment)))
    listed: list[Any] = [(1, in_table), (2, in_set), (3, [(1, item)])]
    return _message(_NEWELEMENT, family, listed, CREATE | (EXCL if must_be_new else 0))


def remove_element(family: int, in_table: str, in_set: str, key: bytes) -> Message:
    """Delete an element by its key; ENOENT when it is not there."""
    return _message(_DELELEMENT, family, [(1, in_table), (2, in_set), (3, [(1, [(1, [(1, key)])])])])


def elements(sock: netlink.Socket, family: int, in_table: str, in_set: str) -> list[tuple[bytes, bytes, str]]:
    """(key, data, comment) of every element; [] when the set is not there."""
    return _listed(query(sock, _message(_GETELEMENT, family, [(1, in_table), (2, in_set)], netlink.DUMP)))


def find_element(sock: netlink.Socket, family: int, in_table: str, in_set: str, key: bytes) -> tuple[bytes, str] | None:
    """(data, comment) of one element, None when there is no such element."""
    wanted = [(3, [(1, [(1, [(1, key)])])])]
    listed = _listed(query(sock, _message(_GETELEMENT, family, [(1, in_table), (2, in_set), *wanted])))
    return next(((data, comment) for _key, data, comment in listed), None)


def rules(sock: netlink.Socket, family: int, in_table: str, in_chain: str = "") -> list[tuple[str, str, str]]:
    """(chain, comment, chain that it jumps to without any condition) of every rule; [] without the table or chain."""
    where = [(1, in_table), *([(2, in_chain)] if in_chain else [])]
    found = []
    for payload in query(sock, _message(_GETRULE, family, where, netlink.DUMP)):
        attributes = netlink.decode(payload[4:])
        found.append((_text(attributes[2]), _text(attributes.get(7, b"")[2:]), _target(attributes.get(4, b""))))
    return found


def rule_handles(sock: netlink.Socket, family: int, in_table: str, in_chain: str) -> list[tuple[int, str, str]]:
    """(handle, comment, chain that it jumps to without any condition) of every rule; [] without the table or chain."""
    found = []
    for payload in query(sock, _message(_GETRULE, family, [(1, in_table), (2, in_chain)], netlink.DUMP)):
        attributes = netlink.decode(payload[4:])
        found.append((_number(attributes[3]), _text(attributes.get(7, b"")[2:]), _target(attributes.get(4, b""))))
    return found


def chain_uses(sock: netlink.Socket, family: int, in_table: str, name: str) -> int | None:
    """How many rules are in it or jump to it, and elements jump to it; None when there is no such chain."""
    payloads = query(sock, _message(_GETCHAIN, family, [(1, in_table), (3, name)]))
    return _number(netlink.decode(payloads[0][4:])[6]) if payloads else None


def has_chains(sock: netlink.Socket, family: int, in_table: str, names: list[str]) -> bool:
    """All of them, asked in one go."""
    try:
        sock.request(*(_message(_GETCHAIN, family, [(1, in_table), (3, name)]) for name in names))
    except FileNotFoundError:
        return False
    return True


def has_set(sock: netlink.Socket, family: int, in_table: str, name: str) -> bool:
    """Whether the set or map is there."""
    return bool(query(sock, _message(_GETSET, family, [(1, in_table), (2, name)])))


def table_uses(sock: netlink.Socket, family: int, name: str) -> int | None:
    """How many chains and sets are in it; None when there is no such table."""
    payloads = query(sock, _message(_GETTABLE, family, [(1, name)]))
    return _number(netlink.decode(payloads[0][4:])[3]) if payloads else None


def removed_objects(messages: list[Message]) -> int:
    """How many chains and sets the messages take away."""
    return sum(message.kind in (_SUBSYSTEM | _DELCHAIN, _SUBSYSTEM | _DELSET) for message in messages)


def number(value: int) -> bytes:
    """A 32-bit attribute, in network byte order."""
    return struct.pack("!I", value)


def query(sock: netlink.Socket, message: Message) -> list[bytes]:
    """Payloads of what a GET request finds; [] when that is not there."""
    while True:
        try:
            return sock.request(message)
        except FileNotFoundError:
            return []
        except OSError as error:
            if error.errno != errno.EINTR:  # the ruleset changed under the listing
                raise


def _listed(payloads: list[bytes]) -> list[tuple[bytes, bytes, str]]:
    found = []
    for payload in payloads:
        for _kind, item in netlink.items(netlink.decode(payload[4:]).get(3, b"")):
            attributes = netlink.decode(item)
            found.append((netlink.decode(attributes[1])[1], _data(attributes.get(2, b"")), _text(attributes.get(6, b"")[2:])))
    return found


def _data(nested: bytes) -> bytes:
    """A map's data: the value, or the name of the chain that a verdict jumps to."""
    attributes = netlink.decode(nested)
    return attributes.get(1) or netlink.decode(attributes.get(2, b"")).get(2, b"").rstrip(b"\0")


def _target(expressions: bytes) -> str:
    for _kind, expression in netlink.items(expressions):
        attributes = netlink.decode(expression)
        if _text(attributes[1]) == "immediate":
            verdict = netlink.decode(netlink.decode(netlink.decode(attributes[2])[2]).get(2, b""))
            return _text(verdict.get(2, b""))
    return ""


def _comment(text: str) -> bytes:
    encoded = text.encode() + b"\0"
    return struct.pack("BB", 0, len(encoded)) + encoded


def _type(parts: list[int]) -> int:
    found = 0
    for part in parts:
        found = found << _CONCATENATED | part
    return found


def _size(parts: list[int]) -> int:
    return sum(_SIZES[part] for part in parts)


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode()


def _number(value: bytes) -> int:
    return int.from_bytes(value, "big")


def _message(kind: int, family: int, attributes: list[Any], flags: int = 0) -> Message:
    return Message(_SUBSYSTEM | kind, struct.pack("!BBH", family, 0, 0), attributes, flags)
