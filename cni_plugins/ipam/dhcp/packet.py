"""DHCPv4 messages as bytes (RFC 2131 section 2, RFC 2132, RFC 3396); pure. Cold."""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

BOOT_REQUEST, BOOT_REPLY = 1, 2
DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE = 1, 2, 3, 4, 5, 6, 7
PAD, MASK, ROUTER, NAME_SERVER, HOST_NAME, DOMAIN, STATIC_ROUTES = 0, 1, 3, 6, 12, 15, 33
REQUESTED_ADDRESS, LEASE_TIME, OVERLOAD, MESSAGE_TYPE, SERVER = 50, 51, 52, 53, 54
PARAMETERS, MESSAGE, MAX_SIZE, RENEWAL_TIME, REBINDING_TIME = 55, 56, 57, 58, 59
VENDOR_CLASS, CLIENT_ID, USER_CLASS, CLASSLESS_ROUTES, END = 60, 61, 77, 121, 255

_ETHERNET, _MAC_LENGTH = 1, 6
_COOKIE = bytes((99, 130, 83, 99))
_FIXED = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s")
_BROADCAST_FLAG = 0x8000
#: BOOTP relays drop what is shorter
_SHORTEST = 300
_NOWHERE = bytes(4)


class Malformed(Exception):
    """Bytes that are no DHCPv4 message for an Ethernet client."""


class Message:
    """Addresses are four bytes; options are whole, however they were split."""

    __slots__ = ("client_address", "is_broadcast", "mac", "op", "options", "seconds", "transaction", "your_address")

    def __init__(
        self,
        *,
        op: int,
        transaction: int,
        mac: bytes,
        options: dict[int, bytes],
        client_address: bytes = _NOWHERE,
        your_address: bytes = _NOWHERE,
        seconds: int = 0,
        is_broadcast: bool = False,
    ) -> None:
        self.op, self.transaction, self.mac, self.options = op, transaction, mac, options
        self.client_address, self.your_address = client_address, your_address
        self.seconds, self.is_broadcast = seconds, is_broadcast

    @property
    def kind(self) -> int:
        """DISCOVER, OFFER…; 0 where it does not say."""
        value = self.options.get(MESSAGE_TYPE, b"")
        return value[0] if len(value) == 1 else 0


def encode(message: Message) -> bytes:
    head = _FIXED.pack(
        message.op, _ETHERNET, _MAC_LENGTH, 0, message.transaction, min(message.seconds, 0xFFFF),
        _BROADCAST_FLAG if message.is_broadcast else 0, message.client_address, message.your_address,
        _NOWHERE, _NOWHERE, message.mac, b"", b"",
    )  # fmt: skip
    # The type comes first: there are servers that look nowhere else.
    ordered = sorted(message.options.items(), key=lambda option: (option[0] != MESSAGE_TYPE, option[0]))
    body = b"".join(_option(code, value) for code, value in ordered)
    return (head + _COOKIE + body + bytes((END,))).ljust(_SHORTEST, b"\0")


def decode(data: bytes) -> Message:
    if len(data) < _FIXED.size + len(_COOKIE) or data[_FIXED.size : _FIXED.size + len(_COOKIE)] != _COOKIE:
        raise Malformed("no DHCP message")
    fixed = _FIXED.unpack_from(data)
    op, hardware, length, _hops, transaction, seconds, flags, client, your, _next, _relay, mac, server_name, file = fixed
    if op not in (BOOT_REQUEST, BOOT_REPLY) or hardware != _ETHERNET or length != _MAC_LENGTH:
        raise Malformed("not for Ethernet")
    options: dict[int, bytes] = {}
    _collect(data[_FIXED.size + len(_COOKIE) :], options)
    overload = options.get(OVERLOAD, b"\0")
    if len(overload) != 1 or overload[0] > 3:
        raise Malformed("option 52 (overload)")
    if overload[0] & 1:
        _collect(file, options)
    if overload[0] & 2:
        _collect(server_name, options)
    return Message(
        op=op, transaction=transaction, mac=mac[:_MAC_LENGTH], options=options, client_address=client, your_address=your,
        seconds=seconds, is_broadcast=bool(flags & _BROADCAST_FLAG),
    )  # fmt: skip


def _option(code: int, value: bytes) -> bytes:
    pieces = [value[start : start + 255] for start in range(0, len(value), 255)] or [b""]
    return b"".join(bytes((code, len(piece))) + piece for piece in pieces)


def _collect(data: bytes, options: dict[int, bytes]) -> None:
    for code, value in _items(data):
        options[code] = options.get(code, b"") + value  # RFC 3396: the pieces of one option belong together


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(data):
        code = data[position]
        position += 1
        if code == END:
            return
        if code == PAD:
            continue
        if position >= len(data) or position + 1 + data[position] > len(data):
            raise Malformed(f"option {code} is cut off")
        yield code, data[position + 1 : position + 1 + data[position]]
        position += 1 + data[position]
