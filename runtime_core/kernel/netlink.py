"""Netlink messages (RFC 3549, netlink(7)): encoded, sent in batches, answered or refused. Cold.

Our own and not pyroute2, because this is the hot path of every pod: see docs/adr. An
attribute tree is a list of (type, value) with value bytes, str, int (32 bit) or such a list.
"""

from __future__ import annotations

import os
import socket
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

ROUTE, NETFILTER = 0, 12
REQUEST, MULTI, ACK, DUMP = 0x1, 0x2, 0x4, 0x300
REPLACE, EXCL, CREATE, APPEND = 0x100, 0x200, 0x400, 0x800
_ERROR, _DONE = 2, 3
#: of the socket, and of an answer: the kernel says in words what it refuses (Documentation/userspace-api/netlink/intro.rst)
_SOL_NETLINK, _EXT_ACK, _CAP_ACK = 270, 11, 10
_CAPPED, _HAS_WORDS, _WORDS = 0x100, 0x200, 1
_NESTED, _TYPE_MASK = 0x8000, 0x3FFF
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_RECEIVE = 1 << 17


class Message:
    """One request: its type, flags, fixed header and attributes."""

    __slots__ = ("attributes", "body", "flags", "kind")

    def __init__(self, kind: int, body: bytes, attributes: Iterable[tuple[int, Any]] = (), flags: int = 0) -> None:
        self.kind, self.body, self.attributes, self.flags = kind, body, attributes, flags


class Socket:
    """A netlink socket of the network namespace in which it is made. Not for two threads at once."""

    def __init__(self, family: int = ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        for option in (_EXT_ACK, _CAP_ACK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        self._socket.bind((0, 0))
        self._sequence = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def request(self, *messages: Message) -> list[bytes]:
        """Send all in one go, each acknowledged; payloads of what came back.

        Raises the OSError of the first that was refused, when all have been answered.
        """
        first = self._sequence + 1
        self._send(messages, ACK)
        return self._collect(range(first, self._sequence + 1))

    def dump(self, message: Message) -> list[bytes]:
        """All objects that a GET request lists: payloads without the netlink header."""
        self._send([message], DUMP)
        return self._collect([self._sequence])

    def _send(self, messages: Iterable[Message], flags: int) -> None:
        self._socket.send(b"".join(self._encode(message, flags) for message in messages))

    def _encode(self, message: Message, flags: int) -> bytes:
        self._sequence += 1
        payload = message.body + encode(message.attributes)
        header = _HEADER.pack(_HEADER.size + len(payload), message.kind, REQUEST | flags | message.flags, self._sequence, 0)
        return header + payload

    def _collect(self, sequences: Iterable[int]) -> list[bytes]:
        waiting, payloads, refusal, words = set(sequences), [], 0, ""
        while waiting:
            for kind, flags, sequence, payload in _split(self._socket.recv(_RECEIVE)):
                if sequence not in waiting:
                    continue
                if kind in (_ERROR, _DONE):
                    waiting.discard(sequence)
                    code = struct.unpack_from("=i", payload)[0] if len(payload) >= 4 else 0
                    if code and not refusal:
                        refusal, words = -code, _words(flags, payload)
                else:
                    payloads.append(payload)
        if refusal > 0:
            raise OSError(refusal, f"netlink: {os.strerror(refusal)}{f' ({words})' if words else ''}")
        return payloads


def encode(attributes: Iterable[tuple[int, Any]]) -> bytes:
    """Attributes one after the other, each padded to four bytes."""
    out = []
    for kind, value in attributes:
        if isinstance(value, list):
            kind, value = kind | _NESTED, encode(value)
        elif isinstance(value, str):
            value = value.encode(errors="surrogateescape") + b"\0"
        elif isinstance(value, int):
            value = struct.pack("=I", value)
        length = _ATTRIBUTE.size + len(value)
        out.append(_ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4))
    return b"".join(out)


def decode(data: bytes) -> dict[int, bytes]:
    """Attributes by type; of a type that repeats, the last one."""
    found = {}
    for kind, value in items(data):
        found[kind] = value
    return found


def items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, value) of each attribute, in order, repeated ones too."""
    position = 0
    while position + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, position)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _TYPE_MASK, data[position + _ATTRIBUTE.size : position + length]
        position += length + -length % 4


def _words(flags: int, payload: bytes) -> str:
    """Of a refusal, "" where there are none: they follow the header of what was refused."""
    if not flags & _HAS_WORDS or not flags & _CAPPED:
        return ""
    return decode(payload[4 + _HEADER.size :]).get(_WORDS, b"").rstrip(b"\0").decode(errors="replace")


def _split(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    position = 0
    while position + _HEADER.size <= len(data):
        length, kind, flags, sequence, _port = _HEADER.unpack_from(data, position)
        yield kind, flags, sequence, data[position + _HEADER.size : position + length]
        position += length + -length % 4
