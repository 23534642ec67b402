"""Traffic control of a link by rtnetlink(7): token buckets, classes, and filters to another link. Cold, no policy."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct

from runtime_core.kernel import netlink
from runtime_core.kernel.netlink import CREATE, EXCL, Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NEWQDISC, _DELQDISC, _GETQDISC = 36, 37, 38
_ECHO = 0x8  # the answer to a GET is an echo
#: how kernels say that there is no such qdisc, or no such link
_MISSING = (errno.ENOENT, errno.EINVAL, errno.ENODEV)
_NEWCLASS, _GETCLASS, _NEWFILTER, _GETFILTER = 40, 42, 44, 46
_HEADER = struct.Struct("=BxxxiIII")
_KIND, _OPTIONS = 1, 2
ROOT, INCOMING = 0xFFFFFFFF, 0xFFFFFFF1
_INGRESS, _FIRST = 0xFFFF0000, 0x10000
_RATE = struct.Struct("=BBHhHI")  # tc_ratespec
_TBF_PARMS, _TBF_RATE64 = 1, 4
_HTB_PARMS, _HTB_INIT, _HTB_RATE64, _HTB_CEIL64 = 1, 2, 6, 7
_HTB_VERSION, _HTB_RATE_TO_QUANTUM = 3, 10
_U32_CLASSID, _U32_SEL, _U32_ACT = 1, 5, 7
_ACT_KIND, _ACT_OPTIONS, _MIRRED_PARMS = 1, 2, 2
_STOLEN, _EGRESS_REDIRECT, _TERMINAL = 4, 1, 1
_ALL, _IPV4, _IPV6 = 0x0003, 0x0800, 0x86DD
_SHAPED, _UNSHAPED, _SHAPED_QUEUE, _UNSHAPED_QUEUE = 0x30, 0x1, 0x300000, 0x310000
_UNSHAPED_RATE, _UNSHAPED_TICKS, _UNSHAPED_PACKETS = 100_000_000_000, 15_625, 1000
_LEAST_QUANTUM, _MOST_QUANTUM = 1514, 60_000
_ETHERNET_HEADER = 14
_LATENCY_SECONDS = 0.025
_TICKS_PER_MICROSECOND = 15.625
#: The kernel keeps a bucket as nanoseconds in 32 bits (q->buffer of sch_tbf), and a tick has 64 of them.
_MOST_TICKS = 0xFFFFFFFF >> 6
_MOST_LIMIT = 0xFFFFFFFF
#: IP version → (protocol, preference, offset of the source address, of the destination address)
_ADDRESSES = {4: (_IPV4, 16, 12, 16), 6: (_IPV6, 15, 8, 24)}


class Shape:
    """How fast a link may send: all of its packets, or all but those of some networks, or only those.

    `rate` in bytes a second, `burst` in bytes. A bucket has room for one packet of the link (`mtu`) at the least: no
    packet that is larger than its bucket would ever pass.
    """

    __slots__ = ("buffer", "by_source", "limit", "networks", "only_listed", "rate")

    def __init__(
        self,
        rate: int,
        burst: int,
        mtu: int,
        *,
        networks: list[str] | None = None,
        only_listed: bool = False,
        by_source: bool = False,
    ) -> None:
        """`networks` are compared with a packet's source where `by_source`, with its destination otherwise."""
        self.rate = rate
        packet = mtu + _ETHERNET_HEADER
        ticks = int(int(burst * 1_000_000 / rate) * _TICKS_PER_MICROSECOND)
        least = int(packet * 1_000_000 * _TICKS_PER_MICROSECOND / rate) + 1
        self.buffer = min(max(ticks, least), _MOST_TICKS)
        self.limit = min(int(rate * _LATENCY_SECONDS) + max(burst, packet), _MOST_LIMIT)
        self.networks = [ipaddress.ip_network(network, strict=False) for network in networks or []]
        self.only_listed, self.by_source = only_listed, by_source

    def messages(self, index: int) -> list[Message]:
        """What makes the link `index` send so."""
        return self._classes(index) if self.networks else [_qdisc(index, _FIRST, ROOT, "tbf", self._bucket())]

    def difference(self, sock: netlink.Socket, index: int) -> str:
        """In words, what the link's qdisc is instead; "" when it is as `messages` made it."""
        kind, options = root_qdisc(sock, index)
        wanted = "htb" if self.networks else "tbf"
        if kind != wanted:
            return f"has the qdisc {kind or 'of its kind'}, not {wanted}"
        if not self.networks:
            return self._bucket_difference(options)
        return self._class_difference(sock, index)

    def _bucket(self) -> list[Any]:
        parms = _rate(self.rate) + _rate(0) + struct.pack("=III", self.limit, self.buffer, 0)
        return [(_TBF_PARMS, parms), *_wide(self.rate, _TBF_RATE64)]

    def _bucket_difference(self, options: dict[int, bytes]) -> str:
        parms = options[_TBF_PARMS]
        limit, buffer = struct.unpack_from("=II", parms, 2 * _RATE.size)
        rate = _read_rate(parms, 0, options.get(_TBF_RATE64))
        return _different(rate=(rate, self.rate), limit=(limit, self.limit), bucket=(buffer, self.buffer))

    def _classes(self, index: int) -> list[Message]:
        default = _UNSHAPED if self.only_listed else _SHAPED
        glob = struct.pack("=IIIII", _HTB_VERSION, _HTB_RATE_TO_QUANTUM, default, 0, 0)
        shaped, unshaped = _FIRST | _SHAPED, _FIRST | _UNSHAPED
        chosen = shaped if self.only_listed else unshaped
        return [
            _qdisc(index, _FIRST, ROOT, "htb", [(_HTB_INIT, glob)]),
            _class(index, shaped, self.rate, self.buffer),
            _class(index, unshaped, _UNSHAPED_RATE, _UNSHAPED_TICKS),
            # Queues of their own: those that the kernel would make are as long as the link's, which may be 0 on an ifb.
            _qdisc(index, _SHAPED_QUEUE, shaped, "bfifo", struct.pack("=I", self.limit)),
            _qdisc(index, _UNSHAPED_QUEUE, unshaped, "pfifo", struct.pack("=I", _UNSHAPED_PACKETS)),
            *(self._choose(index, network, chosen) for network in self.networks),
        ]

    def _choose(self, index: int, network: Any, target: int) -> Message:
        protocol, preference, source, destination = _ADDRESSES[network.version]
        at = source if self.by_source else destination
        address, mask = network.network_address.packed, network.netmask.packed
        keys = [(mask[i : i + 4], address[i : i + 4], at + i) for i in range(0, len(mask), 4) if any(mask[i : i + 4])]
        options = [(_U32_CLASSID, target), (_U32_SEL, _selector(keys))]
        return _filter(index, _FIRST, preference, protocol, options)

    def _class_difference(self, sock: netlink.Socket, index: int) -> str:
        handle = _FIRST | _SHAPED
        listed = sock.dump(Message(_GETCLASS, _HEADER.pack(0, index, 0, 0, 0)))
        options = next((_options(p) for p in listed if _HEADER.unpack_from(p)[2] == handle), None)
        if options is None:
            return "lacks the class that is shaped"
        parms = options[_HTB_PARMS]
        rate, (buffer,) = _read_rate(parms, 0, options.get(_HTB_RATE64)), struct.unpack_from("=I", parms, 2 * _RATE.size)
        rules = sorted(options[_U32_SEL] for options in filters(sock, index, _FIRST) if _U32_SEL in options)
        wanted = sorted(
            netlink.decode(netlink.encode(dict(message.attributes)[_OPTIONS]))[_U32_SEL]
            for message in self._classes(index) if message.kind == _NEWFILTER
        )  # fmt: skip
        if [_keys(rule) for rule in rules] != [_keys(rule) for rule in wanted]:
            return "chooses packets of other networks"
        return _different(rate=(rate, self.rate), bucket=(buffer, self.buffer))


def redirect(index: int, target: int) -> list[Message]:
    """All that comes in by link `index` goes out by link `target`, and returns."""
    action = struct.pack("=IIiiiiI", 0, 0, _STOLEN, 0, 0, _EGRESS_REDIRECT, target)
    options = [
        (_U32_CLASSID, _FIRST | 1),
        (_U32_SEL, _selector([(bytes(4), bytes(4), 0)])),
        (_U32_ACT, [(1, [(_ACT_KIND, "mirred"), (_ACT_OPTIONS, [(_MIRRED_PARMS, action)])])]),
    ]
    return [_qdisc(index, _INGRESS, INCOMING, "ingress", []), _filter(index, _INGRESS, 1, _ALL, options)]


def redirects(sock: netlink.Socket, index: int) -> list[int]:
    """Indices of the links to which what comes in by `index` goes."""
    found = []
    for options in filters(sock, index, _INGRESS):
        for _order, action in netlink.items(options.get(_U32_ACT, b"")):
            attributes = netlink.decode(action)
            parms = netlink.decode(attributes.get(_ACT_OPTIONS, b"")).get(_MIRRED_PARMS)
            if attributes.get(_ACT_KIND) == b"mirred\0" and parms is not None:
                found.append(struct.unpack_from("=I", parms, 24)[0])
    return found


def root_qdisc(sock: netlink.Socket, index: int) -> tuple[str, dict[int, bytes]]:
    """(kind, its options); "" for one that the kernel gave by itself."""
    return _find_qdisc(sock, index, ROOT)


def incoming_qdisc(sock: netlink.Socket, index: int) -> str:
    """Kind of the qdisc for what comes in; "" where there is none."""
    return _find_qdisc(sock, index, INCOMING)[0]


def filters(sock: netlink.Socket, index: int, parent: int) -> list[dict[int, bytes]]:
    """Options of the filters at one qdisc of a link; [] when there is no such qdisc."""
    try:
        payloads = sock.dump(Message(_GETFILTER, _HEADER.pack(0, index, 0, parent, 0)))
    except OSError as error:
        if error.errno not in _MISSING:
            raise
        return []
    return [_options(payload) for payload in payloads]


def remove_qdisc(sock: netlink.Socket, index: int, parent: int) -> None:
    """The one at `ROOT` or at `INCOMING`, with all that is in it; nothing to do where there is none."""
    handle = _INGRESS if parent == INCOMING else 0
    try:
        sock.request(Message(_DELQDISC, _HEADER.pack(0, index, handle, parent, 0)))
    except OSError as error:
        if error.errno not in _MISSING:
            raise


def _find_qdisc(sock: netlink.Socket, index: int, parent: int) -> tuple[str, dict[int, bytes]]:
    try:
        payloads = sock.request(Message(_GETQDISC, _HEADER.pack(0, index, 0, parent, 0), flags=_ECHO))
    except OSError as error:
        if error.errno not in _MISSING:
            raise
        return "", {}
    for payload in payloads:
        if _HEADER.unpack_from(payload)[2]:  # a handle: the kernel gives its own defaults none
            return netlink.decode(payload[_HEADER.size :])[_KIND].rstrip(b"\0").decode(), _options(payload)
    return "", {}


def _qdisc(index: int, handle: int, parent: int, kind: str, options: Any) -> Message:
    header = _HEADER.pack(0, index, handle, parent, 0)
    return Message(_NEWQDISC, header, [(_KIND, kind), (_OPTIONS, options)], CREATE | EXCL)


def _class(index: int, handle: int, rate: int, buffer: int) -> Message:
    quantum = min(max(rate // _HTB_RATE_TO_QUANTUM, _LEAST_QUANTUM), _MOST_QUANTUM)
    parms = _rate(rate) + _rate(rate) + struct.pack("=IIIII", buffer, buffer, quantum, 0, 0)
    options = [(_HTB_PARMS, parms), *_wide(rate, _HTB_RATE64), *_wide(rate, _HTB_CEIL64)]
    header = _HEADER.pack(0, index, handle, _FIRST, 0)
    return Message(_NEWCLASS, header, [(_KIND, "htb"), (_OPTIONS, options)], CREATE | EXCL)


def _filter(index: int, parent: int, preference: int, protocol: int, options: list[Any]) -> Message:
    header = _HEADER.pack(0, index, 0, parent, preference << 16 | socket.htons(protocol))
    return Message(_NEWFILTER, header, [(_KIND, "u32"), (_OPTIONS, options)], CREATE | EXCL)


def _selector(keys: list[tuple[bytes, bytes, int]]) -> bytes:
    """(mask, value, offset) of 32 bits each, all of which must fit; any packet when there is none."""
    keys = keys or [(bytes(4), bytes(4), 0)]
    head = struct.pack("=BBBxHHhhI", _TERMINAL, 0, len(keys), 0, 0, 0, 0, 0)
    return head + b"".join(mask + value + struct.pack("=ii", at, 0) for mask, value, at in keys)


def _keys(selector: bytes) -> bytes:
    """Of a selector, what does not change while it is in use."""
    return selector[2:3] + selector[16:]


def _rate(rate: int) -> bytes:
    return _RATE.pack(0, 0, 0, 0, 0, min(rate, 0xFFFFFFFF))


def _wide(rate: int, key: int) -> list[tuple[int, bytes]]:
    return [(key, struct.pack("=Q", rate))] if rate >= 1 << 32 else []


def _read_rate(parms: bytes, at: int, wide: bytes | None) -> int:
    return int(struct.unpack("=Q", wide)[0]) if wide else int(_RATE.unpack_from(parms, at)[5])


def _options(payload: bytes) -> dict[int, bytes]:
    return netlink.decode(netlink.decode(payload[_HEADER.size :]).get(_OPTIONS, b""))


def _different(**values: tuple[int, int]) -> str:
    return ", ".join(f"has the {name} {found}, not {wanted}" for name, (found, wanted) in values.items() if found != wanted)
