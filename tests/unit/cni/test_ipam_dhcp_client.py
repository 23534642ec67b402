"""The DHCP client's states by the time and by what it hears, and the daemon's command line."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cni_plugins.ipam.dhcp import client as states
from cni_plugins.ipam.dhcp import command, packet, plugin
from cni_plugins.ipam.dhcp.client import Client, Lease, OutgoingMessage, Timing
from cni_plugins.ipam.dhcp.packet import Message

_MAC = bytes.fromhex("020000000001")
_SERVER, _OTHER_SERVER, _ADDRESS = (socket.inet_aton(text) for text in ("10.9.0.1", "10.9.0.2", "10.9.0.10"))


class Talk:
    """A client, the time, and a server's answers to what it said last."""

    def __init__(self, *, give_up: float = 60, **more: Any) -> None:
        self.client = Client(_MAC, {61: b"\0id", 55: b"\x03\x01"}, Timing(10, 62, give_up), lambda: 0.5, **more)
        self.now = 1000.0
        self.said: list[OutgoingMessage] = []

    def start(self) -> Message:
        self.said += self.client.start(self.now)
        return self.last

    @property
    def last(self) -> Message:
        return self.said[-1].message

    def hear(self, kind: int, server: bytes = _SERVER, address: bytes = _ADDRESS, **seconds: int) -> bool:
        """Whether it said something to that."""
        codes = {"lease": 51, "renewal": 58, "rebinding": 59}
        found = {codes[name]: value.to_bytes(4, "big") for name, value in seconds.items()}
        answer = Message(
            op=2, transaction=self.last.transaction, mac=_MAC, your_address=address,
            options={53: bytes((kind,)), 54: server, **found},
        )  # fmt: skip
        before = len(self.said)
        self.said += self.client.receive(answer, self.now)
        return len(self.said) > before

    def wait(self) -> float:
        """To its deadline: how long that was."""
        assert self.client.deadline is not None
        passed, self.now = self.client.deadline - self.now, self.client.deadline
        self.said += self.client.wake(self.now)
        return passed

    def bind(self, **seconds: int) -> None:
        self.start()
        self.hear(packet.OFFER)
        self.hear(packet.ACK, **seconds)
        assert self.client.state == states.BOUND


def test_from_init_to_bound() -> None:
    """DISCOVER, OFFER, REQUEST, ACK; one transaction; both go to all."""
    talk = Talk(is_broadcast=True)
    assert talk.start().kind == packet.DISCOVER
    talk.now += 3
    assert talk.hear(packet.OFFER)
    assert (talk.client.state, talk.last.kind, talk.last.seconds) == (states.REQUESTING, packet.REQUEST, 3)
    assert talk.last.options[50] == _ADDRESS and talk.last.options[54] == _SERVER
    assert not talk.hear(packet.ACK, lease=100)
    assert talk.client.state == states.BOUND
    lease = talk.client.lease
    assert lease is not None
    assert (lease.address, lease.server, lease.renewal, lease.rebinding, lease.expiry) == (_ADDRESS, _SERVER, 1053, 1090.5, 1103)
    assert [sent.server for sent in talk.said] == [None, None]
    assert {(sent.message.transaction, sent.message.is_broadcast) for sent in talk.said} == {(talk.last.transaction, True)}
    assert all(sent.message.options[61] == b"\0id" for sent in talk.said)


def test_silence() -> None:
    """It is asked after 4 s, 8, 16, 32; then it is enough."""
    talk = Talk()
    talk.start()
    assert [talk.wait() for _time in range(4)] == [4, 8, 16, 32]
    assert talk.client.state == states.FAILED
    assert (talk.client.deadline, len(talk.said), talk.client.wake(9999.0)) == (None, 4, [])


def test_a_server_that_offers_and_then_is_silent() -> None:
    """Four requests, then it begins anew with another transaction, and takes another server's offer."""
    talk = Talk(give_up=600)
    talk.start()
    talk.hear(packet.OFFER)
    assert [talk.wait() for _time in range(4)] == [4, 8, 16, 32]
    assert [sent.message.kind for sent in talk.said] == [1, 3, 3, 3, 3, 1]
    assert talk.hear(packet.OFFER, _OTHER_SERVER)
    assert talk.last.options[54] == _OTHER_SERVER


@pytest.mark.parametrize(
    ("kind", "server", "address"),
    [
        (packet.ACK, _OTHER_SERVER, _ADDRESS), (packet.NAK, _OTHER_SERVER, _ADDRESS), (packet.ACK, _SERVER, b"\x0a\x09\0\x63"),
        (packet.OFFER, _SERVER, _ADDRESS), (packet.RELEASE, _SERVER, _ADDRESS), (0, _SERVER, _ADDRESS), (packet.ACK, b"", _ADDRESS),
    ],
)  # fmt: skip
def test_what_is_no_answer_to_a_request(kind: int, server: bytes, address: bytes) -> None:
    """Of another server, another address, another kind."""
    talk = Talk()
    talk.start()
    talk.hear(packet.OFFER)
    assert not talk.hear(kind, server, address)
    assert talk.client.state == states.REQUESTING


def test_a_refusal_is_followed_by_a_pause() -> None:
    """A server that refuses what it offers would have us go round for ever."""
    talk = Talk()
    talk.start()
    talk.hear(packet.OFFER)
    assert not talk.hear(packet.NAK)
    assert (talk.client.state, len(talk.said), talk.wait()) == (states.INIT, 2, 4)
    assert (talk.last.kind, talk.client.state) == (packet.DISCOVER, states.SELECTING)


def test_renewing_rebinding_and_the_end() -> None:
    """At T1 to the server, half of what is left and no less than a minute apart; at T2 to all; at the end it is lost."""
    talk = Talk()
    talk.bind(lease=1000, renewal=400, rebinding=800)
    assert talk.wait() == 400
    assert (talk.client.state, talk.said[-1].server, talk.last.client_address) == (states.RENEWING, _SERVER, _ADDRESS)
    assert not {50, 54} & set(talk.last.options)
    assert [talk.wait() for _time in range(4)] == [200, 100, 60, 40]
    assert (talk.client.state, talk.said[-1].server) == (states.REBINDING, None)
    assert [talk.wait() for _time in range(3)] == [100, 60, 40]
    assert (talk.client.state, talk.client.deadline) == (states.LOST, None)
    assert talk.client.release() == []


@pytest.mark.parametrize(
    ("state", "kind", "server", "address", "after"),
    [
        (states.RENEWING, packet.ACK, _SERVER, _ADDRESS, states.BOUND),
        (states.RENEWING, packet.NAK, _SERVER, bytes(4), states.LOST),
        (states.RENEWING, packet.ACK, _OTHER_SERVER, _ADDRESS, states.RENEWING),
        (states.RENEWING, packet.NAK, _OTHER_SERVER, bytes(4), states.RENEWING),
        (states.RENEWING, packet.ACK, _SERVER, b"\x0a\x09\0\x63", states.RENEWING),
        (states.REBINDING, packet.ACK, _OTHER_SERVER, _ADDRESS, states.BOUND),
        (states.REBINDING, packet.NAK, _OTHER_SERVER, bytes(4), states.LOST),
    ],
)
def test_an_answer_to_a_renewal(state: str, kind: int, server: bytes, address: bytes, after: str) -> None:
    """Only its own server's while that may be there; then anybody's. Another address is no renewal."""
    talk = Talk()
    talk.bind(lease=1000, renewal=400, rebinding=401)
    while talk.client.state != state:
        talk.wait()
    talk.hear(kind, server, address, lease=5000)
    assert talk.client.state == after
    if after == states.BOUND:
        lease = talk.client.lease
        assert lease is not None
        assert (lease.server, lease.expiry) == (server, talk.now + 5000)


@pytest.mark.parametrize(
    ("seconds", "times"),
    [
        ({}, (1800, 3150, 3600)), ({"lease": 0}, (1, 1.75, 2)), ({"lease": 0xFFFFFFFF}, None), ({"lease": 80}, (40, 70, 80)),
        ({"lease": 80, "renewal": 30, "rebinding": 50}, (30, 50, 80)), ({"lease": 80, "renewal": 60, "rebinding": 50}, (40, 50, 80)),
        ({"lease": 80, "renewal": 0, "rebinding": 0}, (40, 70, 80)), ({"lease": 80, "renewal": 99, "rebinding": 99}, (40, 70, 80)),
        ({"lease": 80, "rebinding": 10}, (10, 10, 80)),
    ],
)  # fmt: skip
def test_times_are_in_order_whatever_the_server_says(seconds: dict[str, int], times: tuple[float, ...] | None) -> None:
    """T1, T2 and the end; none where the lease is for ever."""
    talk = Talk()
    talk.bind(**seconds)
    lease = talk.client.lease
    assert lease is not None
    found = (lease.renewal, lease.rebinding, lease.expiry)
    assert found == ((None,) * 3 if times is None else tuple(1000 + one for one in times))
    assert talk.client.deadline == lease.renewal


def test_release_says_whose_address_it_was() -> None:
    """To the server, once; a client without an address says nothing."""
    talk = Talk()
    talk.bind(lease=100)
    (sent,) = talk.client.release()
    assert (sent.server, sent.message.kind, sent.message.client_address) == (_SERVER, packet.RELEASE, _ADDRESS)
    assert sent.message.options == {53: b"\x07", 54: _SERVER, 61: b"\0id"}
    assert talk.client.release() == []
    assert Talk().client.release() == []
    assert (talk.client.state, states.has_ended(talk.client)) == (states.RELEASED, True)


def test_a_lease_of_an_earlier_process() -> None:
    """It goes on where the time has come to: bound, renewing, rebinding, or lost."""
    for now, state in ((1100, states.BOUND), (1500, states.RENEWING), (1900, states.REBINDING), (2100, states.LOST)):
        talk = Talk()
        talk.client.resume(Lease(_ADDRESS, _SERVER, 1500.0, 1875.0, 2000.0))
        talk.client.wake(float(now))
        assert talk.client.state == state


_HEARD = st.tuples(
    st.sampled_from([packet.OFFER, packet.ACK, packet.NAK, packet.REQUEST, 0]), st.sampled_from([_SERVER, _OTHER_SERVER]),
    st.sampled_from([_ADDRESS, b"\x0a\x09\0\x63", bytes(4)]),
    st.dictionaries(st.sampled_from(["lease", "renewal", "rebinding"]), st.integers(0, 0xFFFFFFFF)),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(_HEARD | st.just("wait") | st.just("late"), max_size=40))
def test_whatever_it_hears_it_goes_on(events: list[Any]) -> None:
    """There is always a next deadline, and it is in the future, unless the lease is for ever or all has ended; an
    address is held only between an ACK and the end of its time."""
    talk = Talk()
    talk.start()
    for event in events:
        if event in ("wait", "late"):
            if talk.client.deadline is None:
                continue
            talk.now += 1e6 if event == "late" else 0
            talk.now = max(talk.now, talk.client.deadline)
            talk.said += talk.client.wake(talk.now)
        else:
            kind, server, address, seconds = event
            talk.hear(kind, server, address, **seconds)
        lease, state = talk.client.lease, talk.client.state
        is_for_ever = state == states.BOUND and lease is not None and lease.expiry is None
        assert (talk.client.deadline is None) == (is_for_ever or states.has_ended(talk.client))
        assert talk.client.deadline is None or talk.client.deadline > talk.now
        if state in (states.BOUND, states.RENEWING, states.REBINDING):
            assert lease is not None
            assert lease.address in (_ADDRESS, b"\x0a\x09\0\x63")
            assert lease.expiry is None or talk.now < lease.expiry


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ([], {}),
        (
            ["-socketpath", "/s", "--pidfile=/p", "-hostprefix=/host"],
            {"socket_path": "/s", "pidfile": "/p", "host_prefix": "/host"},
        ),
        (["-broadcast"], {"is_broadcast": True}),
        (["-broadcast=false", "-timeout", "10s"], {"is_broadcast": False, "timeout": 10}),
        (
            ["-timeout=500ms", "-resendmax", "1m30s", "-resendtimeout", "1.5h"],
            {"timeout": 0.5, "resend_max": 90, "resend_timeout": 5400},
        ),
        (["-socketpath", ""], {}),
    ],
)
def test_the_daemons_flags(arguments: list[str], found: dict[str, Any]) -> None:
    """As the reference binary takes them."""
    assert command.parse_arguments(arguments) == {"socket_path": "/run/cni/dhcp.sock", **found}


@pytest.mark.parametrize(
    "arguments", [["x"], ["-x"], ["-timeout"], ["-timeout", "10"], ["-timeout", "s"], ["-timeout", "-1s"], ["-broadcast=maybe"]]
)
def test_a_wrong_flag_is_told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """With the usage, on standard error."""
    assert plugin.command_line(["daemon", *arguments]) == 2
    assert "usage: dhcp daemon" in capsys.readouterr().err


def test_other_words_than_daemon() -> None:
    """There is one command."""
    assert plugin.command_line(["serve"]) == 2
    assert plugin.command_line(["daemon", "-help"]) == 0
