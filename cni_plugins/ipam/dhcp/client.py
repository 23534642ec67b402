"""The client's states of RFC 2131 figure 5, without any I/O: messages and the time in, messages out. Cold."""

from __future__ import annotations

from cni_plugins.ipam.dhcp import packet
from cni_plugins.ipam.dhcp.options import seconds
from cni_plugins.ipam.dhcp.packet import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

INIT, SELECTING, REQUESTING, BOUND = "INIT", "SELECTING", "REQUESTING", "BOUND"
RENEWING, REBINDING = "RENEWING", "REBINDING"
#: nobody answered; the address may be used no longer; it was given back
FAILED, LOST, RELEASED = "FAILED", "LOST", "RELEASED"
_ENDED = (FAILED, LOST, RELEASED)

_DEFAULT_LEASE, _SHORTEST_LEASE, _FOR_EVER = 3600, 2, 0xFFFFFFFF
_FIRST_WAIT, _SHORTEST_RENEWAL_WAIT = 4.0, 60.0
_MOST_REQUESTS = 4
_LARGEST_MESSAGE = (1500).to_bytes(2, "big")


class Timing:
    """Seconds: how long an answer is waited for at first and at most, and when asking ends."""

    __slots__ = ("give_up", "longest", "wait")

    def __init__(self, timeout: float, resend_max: float, resend_timeout: float) -> None:
        self.wait, self.longest, self.give_up = min(timeout, _FIRST_WAIT), resend_max, resend_timeout


class Lease:
    """An address with its times; `renewal`, `rebinding` and `expiry` are None where it is for ever."""

    __slots__ = ("address", "expiry", "rebinding", "renewal", "server")

    def __init__(
        self, address: bytes, server: bytes, renewal: float | None, rebinding: float | None, expiry: float | None
    ) -> None:
        self.address, self.server = address, server
        self.renewal, self.rebinding, self.expiry = renewal, rebinding, expiry


class OutgoingMessage:
    """A message to `server`, or to all where it is None."""

    __slots__ = ("message", "server")

    def __init__(self, message: Message, server: bytes | None = None) -> None:
        self.message, self.server = message, server


class Client:
    """`state` says where it stands, `deadline` when `wake` is to be called, `ack` what the server gave last."""

    def __init__(
        self, mac: bytes, options: dict[int, bytes], timing: Timing, random: Callable[[], float], *, is_broadcast: bool = False
    ) -> None:
        """`options` go into every message, the client's identifier among them; `random` gives numbers from 0 to 1."""
        self._mac, self._options, self._timing, self._random, self._is_broadcast = mac, options, timing, random, is_broadcast
        self.state = INIT
        self.deadline: float | None = None
        self.lease: Lease | None = None
        self.ack: Message | None = None
        self._transaction = 0
        self._began = self._wait = 0.0
        self._requests = 0
        self._offer: tuple[bytes, bytes] = (b"", b"")

    def start(self, now: float) -> list[OutgoingMessage]:
        """Begin at INIT; the messages to send."""
        self._began = now
        return self._discover(now, self._timing.wait)

    def resume(self, lease: Lease) -> None:
        """Go on with a lease of an earlier process; its times may have passed."""
        self.lease, self.state, self.deadline = lease, BOUND, lease.renewal

    def drop_lease(self) -> None:
        """The address may be used no longer."""
        self._end(LOST)

    def receive(self, message: Message, now: float) -> list[OutgoingMessage]:
        """What is not an answer to what was asked last is ignored, whoever sends it."""
        server = message.options.get(packet.SERVER, b"")
        if (message.op, message.transaction, message.mac) != (packet.BOOT_REPLY, self._transaction, self._mac) or len(
            server
        ) != 4:
            return []
        if self.state == SELECTING and message.kind == packet.OFFER and _is_usable(message.your_address):
            self._offer = (message.your_address, server)
            self.state, self._requests, self._wait = REQUESTING, 0, self._timing.wait
            return self._request(now)
        if self.state == REQUESTING and server == self._offer[1]:
            return self._handle_answer(message, now)
        if self.state in (RENEWING, REBINDING) and self.lease:
            if self.state == RENEWING and server != self.lease.server:
                return []
            if message.kind == packet.ACK and message.your_address == self.lease.address:
                self._bind(message, server, now)
            elif message.kind == packet.NAK:
                self.drop_lease()
        return []

    def wake(self, now: float) -> list[OutgoingMessage]:
        """At `deadline`, or later."""
        if self.deadline is None or now < self.deadline:
            return []
        if self.state in (SELECTING, REQUESTING, INIT) and now >= self._began + self._timing.give_up:
            self._end(FAILED)
            return []
        if self.state == SELECTING:
            return self._discover(now, min(self._wait * 2, self._timing.longest))
        if self.state == INIT or (self.state == REQUESTING and self._requests >= _MOST_REQUESTS):
            return self._discover(now, self._timing.wait)
        if self.state == REQUESTING:
            self._wait = min(self._wait * 2, self._timing.longest)
            return self._request(now)
        return self._extend(now)

    def release(self) -> list[OutgoingMessage]:
        """Give the address back, if there is one."""
        lease, has_address = self.lease, self.state in (BOUND, RENEWING, REBINDING)
        self._end(RELEASED)
        if lease is None or not has_address:
            return []
        self._transaction = self._new_transaction()
        only_id = {packet.CLIENT_ID: self._options[packet.CLIENT_ID]} if packet.CLIENT_ID in self._options else {}
        options = {packet.MESSAGE_TYPE: bytes((packet.RELEASE,)), packet.SERVER: lease.server, **only_id}
        return [OutgoingMessage(self._message(options, client_address=lease.address), lease.server)]

    def _discover(self, now: float, wait: float) -> list[OutgoingMessage]:
        if self.state != SELECTING:
            self._transaction = self._new_transaction()
        self.state, self._wait = SELECTING, wait
        self._wait_for_answer(now)
        options = {packet.MESSAGE_TYPE: bytes((packet.DISCOVER,)), packet.MAX_SIZE: _LARGEST_MESSAGE, **self._options}
        return [OutgoingMessage(self._message(options, now=now))]

    def _request(self, now: float) -> list[OutgoingMessage]:
        self._requests += 1
        self._wait_for_answer(now)
        address, server = self._offer
        options = {
            packet.MESSAGE_TYPE: bytes((packet.REQUEST,)), packet.REQUESTED_ADDRESS: address, packet.SERVER: server,
            packet.MAX_SIZE: _LARGEST_MESSAGE, **self._options,
        }  # fmt: skip
        return [OutgoingMessage(self._message(options, now=now))]

    def _handle_answer(self, message: Message, now: float) -> list[OutgoingMessage]:
        if message.kind == packet.ACK and message.your_address == self._offer[0]:
            self._bind(message, self._offer[1], now)
        elif message.kind == packet.NAK:  # from the beginning, but not at once: it might go round for ever
            self.state = INIT
            self._wait_for_answer(now)
        return []

    def _bind(self, ack: Message, server: bytes, now: float) -> None:
        length = seconds(ack, packet.LEASE_TIME)
        length = _DEFAULT_LEASE if length is None else max(length, _SHORTEST_LEASE)
        self.ack, self.state = ack, BOUND
        if length == _FOR_EVER:
            self.lease = Lease(ack.your_address, server, None, None, None)
        else:
            renewal, rebinding = _times(ack, length)
            self.lease = Lease(ack.your_address, server, now + renewal, now + rebinding, now + length)
        self.deadline = self.lease.renewal

    def _extend(self, now: float) -> list[OutgoingMessage]:
        """Ask the server, from the second time on all servers, for the lease to be longer; or give it up."""
        lease = self.lease
        assert lease is not None and lease.rebinding is not None and lease.expiry is not None
        if now >= lease.expiry:
            self.drop_lease()
            return []
        before = self.state
        self.state = REBINDING if now >= lease.rebinding else RENEWING
        if before == BOUND:
            self._transaction = self._new_transaction()
            self._began = now
        end = lease.expiry if self.state == REBINDING else lease.rebinding
        self.deadline = min(now + max((end - now) / 2, _SHORTEST_RENEWAL_WAIT), end)
        options = {packet.MESSAGE_TYPE: bytes((packet.REQUEST,)), packet.MAX_SIZE: _LARGEST_MESSAGE, **self._options}
        message = self._message(options, client_address=lease.address, now=now)
        return [OutgoingMessage(message, lease.server if self.state == RENEWING else None)]

    def _message(self, options: dict[int, bytes], **more: Any) -> Message:
        now = more.pop("now", self._began)
        return Message(
            op=packet.BOOT_REQUEST, transaction=self._transaction, mac=self._mac, options=options,
            seconds=int(now - self._began), is_broadcast=self._is_broadcast, **more,
        )  # fmt: skip

    def _wait_for_answer(self, now: float) -> None:
        """Everybody on the link was started at the same time, perhaps: a quarter more or less."""
        wait = self._wait * (0.75 + self._random() / 2)
        self.deadline = min(now + wait, self._began + self._timing.give_up)

    def _new_transaction(self) -> int:
        return int(self._random() * 0xFFFFFFFF)

    def _end(self, state: str) -> None:
        self.state, self.deadline = state, None


def has_ended(client: Client) -> bool:
    return client.state in _ENDED


def _times(ack: Message, length: int) -> tuple[float, float]:
    """(T1, T2) in seconds; the RFC's shares of the lease where the server says none, or nonsense."""
    renewal, rebinding = seconds(ack, packet.RENEWAL_TIME), seconds(ack, packet.REBINDING_TIME)
    t2 = rebinding if rebinding and rebinding < length else length * 0.875
    t1 = renewal if renewal and renewal < t2 else min(length * 0.5, t2)
    return t1, t2


def _is_usable(address: bytes) -> bool:
    """A host's address: not 0/8, not loopback, not multicast or beyond."""
    return address[0] not in (0, 127) and address[0] < 224
