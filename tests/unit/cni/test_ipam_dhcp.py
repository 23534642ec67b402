"""DHCP without a network: messages and frames as bytes, options, the client's states, the daemon's command line."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cni_plugins.ipam.dhcp import client as states
from cni_plugins.ipam.dhcp import command, frame, options, packet, plugin
from cni_plugins.ipam.dhcp.client import Client, Lease, Send, Timing
from cni_plugins.ipam.dhcp.packet import Malformed, Message
from runtime_core.cni.request import Request
from runtime_core.errors import InvalidArgument

_MAC = bytes.fromhex("020000000001")
_SERVER, _OTHER_SERVER, _ADDRESS = (socket.inet_aton(text) for text in ("10.9.0.1", "10.9.0.2", "10.9.0.10"))
_COOKIE = bytes.fromhex("63825363")


def _wire(body: bytes, *, op: int = 2, hardware: bytes = b"\x01\x06", server_name: bytes = b"", file: bytes = b"") -> bytes:
    head = bytes((op,)) + hardware + b"\0" + (7).to_bytes(4, "big") + bytes(4) + bytes(4) + _ADDRESS + bytes(8)
    return head + _MAC.ljust(16, b"\0") + server_name.ljust(64, b"\0") + file.ljust(128, b"\0") + _COOKIE + body


def test_a_message_as_it_goes_out() -> None:
    """Field by field after RFC 2131 figure 1; the type first; no shorter than relays let pass."""
    message = Message(
        op=1, transaction=0x01020304, mac=_MAC, options={12: b"web", 53: b"\x01"}, client_address=_ADDRESS, seconds=70000,
        is_broadcast=True,
    )  # fmt: skip
    expected = b"\x01\x01\x06\x00" + b"\x01\x02\x03\x04" + b"\xff\xff\x80\x00" + _ADDRESS + bytes(12)
    expected += _MAC + bytes(10) + bytes(192) + _COOKIE + b"\x35\x01\x01\x0c\x03web\xff"
    assert packet.encode(message) == expected.ljust(300, b"\0")


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (_wire(b"\x35\x01\x02\xff"), {53: b"\x02"}),
        (_wire(b"\0\0\x35\x01\x02\0\xff\x01\x04"), {53: b"\x02"}),
        (_wire(b"\x35\x01\x02"), {53: b"\x02"}),  # without an end
        (_wire(b""), {}),
        (_wire(b"\x0f\x02d.\x0f\x04test\xff"), {15: b"d.test"}),  # RFC 3396: one option in two pieces
        (_wire(b"\x0c\x00\xff"), {12: b""}),
        (_wire(b"\x34\x01\x01\xff", file=b"\x0c\x01a\xff"), {52: b"\x01", 12: b"a"}),
        (_wire(b"\x34\x01\x02\xff", server_name=b"\x0c\x01b\xff"), {52: b"\x02", 12: b"b"}),
        (_wire(b"\x34\x01\x03\x0c\x01x\xff", file=b"\x0c\x01a\xff", server_name=b"\x0c\x01b"), {52: b"\x03", 12: b"xab"}),
        (_wire(b"\xff", file=b"\x0c\x01a\xff"), {}),
    ],
)
def test_options_wherever_they_stand(data: bytes, found: dict[int, bytes]) -> None:
    """In the message, in its file and in its server name."""
    message = packet.decode(data)
    assert message.options == found
    assert (message.op, message.transaction, message.mac, message.your_address) == (2, 7, _MAC, _ADDRESS)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\x02" * 239, _wire(b"")[:-1], _wire(b"", op=3), _wire(b"", op=0), _wire(b"", hardware=b"\x20\x06"),
        _wire(b"", hardware=b"\x01\x10"), _wire(b"").replace(_COOKIE, b"abcd"), _wire(b"\x0c"), _wire(b"\x0c\x05abcd"),
        _wire(b"\x34\x01\x04"), _wire(b"\x34\x02\x00\x00"), _wire(b"\x34\x01\x01", file=b"\x0c\xff"),
    ],
)  # fmt: skip
def test_what_is_no_message_is_malformed(data: bytes) -> None:
    """And nothing else."""
    with pytest.raises(Malformed):
        packet.decode(data)


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=400) | st.binary(max_size=120).map(_wire), st.booleans())
def test_any_bytes(data: bytes, is_checked: bool) -> None:
    """A message, whose options make a result, or Malformed; a payload or None."""
    frame.unwrap(data, is_checked=is_checked)
    try:
        options.result(packet.decode(data), {"request": [{"option": "6"}, {"option": "15"}]})
    except Malformed:
        pass


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.integers(1, 254).filter(lambda code: code != 52), st.binary(max_size=600), max_size=4))
def test_what_is_written_is_read(found: dict[int, bytes]) -> None:
    """Long options too, which go in pieces."""
    message = packet.decode(packet.encode(Message(op=1, transaction=9, mac=_MAC, options=found)))
    assert message.options == found


def _answer(payload: bytes) -> bytes:
    """The frame of a server's answer, its checksums right."""
    outgoing = frame.wrap(payload, _SERVER, _ADDRESS)
    return outgoing[:20] + outgoing[22:24] + outgoing[20:22] + outgoing[24:]  # ports exchanged: the sum is the same


@pytest.mark.parametrize("payload", [b"", b"x", b"even", b"odd", bytes(300)])
def test_a_frame_is_unwrapped(payload: bytes) -> None:
    """With padding of the link behind it."""
    assert frame.unwrap(_answer(payload) + bytes(9), is_checked=True) == payload


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, 0x65), (0, 0x44), (0, 0x4F), (3, 0xFF), (3, 0x1B), (6, 0x20), (7, 0x01), (9, 6), (10, 0), (23, 67), (25, 0x00),
        (25, 0xFF), (26, 0x55), (30, 0x55),
    ],
)  # fmt: skip
def test_a_frame_that_is_not_right_is_none(place: int, value: int) -> None:
    """Version, lengths, fragments, protocol, port, sums."""
    data = bytearray(_answer(b"payload"))
    data[place] = value
    assert frame.unwrap(bytes(data), is_checked=True) is None


def test_a_sum_that_the_sender_left_to_its_device() -> None:
    """On one host it is not there, and is not asked for; a sum of nought is none."""
    data = bytearray(_answer(b"payload"))
    data[26:28] = b"\x55\x55"
    assert frame.unwrap(bytes(data), is_checked=False) == b"payload"
    data[26:28] = b"\0\0"
    assert frame.unwrap(bytes(data), is_checked=True) == b"payload"


def _ack(**found: bytes) -> Message:
    codes = {"mask": 1, "router": 3, "dns": 6, "domain": 15, "static": 33, "classless": 121}
    return Message(
        op=2, transaction=1, mac=_MAC, your_address=_ADDRESS, options={codes[name]: value for name, value in found.items()}
    )


@pytest.mark.parametrize(
    ("found", "address", "gateway", "routes"),
    [
        ({"mask": b"\xff\xff\xff\x00"}, "10.9.0.10/24", None, []),
        ({"mask": b"\xff\xff\xff\xff"}, "10.9.0.10/32", None, []),
        (
            {"mask": b"\xff\xff\x00\x00", "router": _SERVER + _OTHER_SERVER}, "10.9.0.10/16", "10.9.0.1",
            [{"dst": "0.0.0.0/0", "gw": "10.9.0.1"}],
        ),
        ({"mask": b"\xff\xff\xff\x00", "router": b"\x0a\x09"}, "10.9.0.10/24", None, []),
        (
            {"mask": b"\xff\xff\xff\x00", "router": _SERVER, "static": b"\x0a\x01\x02\x03" + _SERVER + b"\xac\x10\x00\x00" + _SERVER},
            "10.9.0.10/24", "10.9.0.1",
            [
                {"dst": "10.0.0.0/8", "gw": "10.9.0.1"}, {"dst": "172.16.0.0/16", "gw": "10.9.0.1"},
                {"dst": "0.0.0.0/0", "gw": "10.9.0.1"},
            ],
        ),
        (
            {"mask": b"\xff\xff\xff\x00", "router": _SERVER, "static": b"\xc0\xa8\x01\x00" + _SERVER, "classless": b""},
            "10.9.0.10/24", "10.9.0.1",
            [{"dst": "192.168.1.0/24", "gw": "10.9.0.1"}, {"dst": "0.0.0.0/0", "gw": "10.9.0.1"}],
        ),
        (
            {"mask": b"\xff\xff\xff\x00", "router": _SERVER, "classless": b"\x00" + _OTHER_SERVER + b"\x11\x0a\x05\x80" + _SERVER},
            "10.9.0.10/24", "10.9.0.1", [{"dst": "0.0.0.0/0", "gw": "10.9.0.2"}, {"dst": "10.5.128.0/17", "gw": "10.9.0.1"}],
        ),
    ],
)  # fmt: skip
def test_an_answer_as_a_result(found: dict[str, bytes], address: str, gateway: str | None, routes: list[dict[str, Any]]) -> None:
    """The reference plugin's: the first router is the gateway, and RFC 3442's routes stand for all others."""
    ips = [{"address": address, **({"gateway": gateway} if gateway else {})}]
    assert options.result(_ack(**found), {}) == {"ips": ips, "routes": routes, "dns": {}}


@pytest.mark.parametrize(
    ("ipam", "args", "sent"),
    [
        ({}, {}, {55: b"\x03\x01"}),
        ({"request": [{"skipDefault": True}]}, {}, {}),
        ({"request": [{"option": "subnet-mask"}, {"option": "121"}]}, {}, {55: b"\x01\x79\x03"}),
        ({"request": [{"skipDefault": True, "option": "routers"}, {"option": ""}]}, {}, {55: b"\x03"}),
        (
            {
                "provide": [
                    {"option": "host-name", "value": "a"},
                    {"option": "77", "fromArg": "U"},
                    {"option": "60", "fromArg": "V"},
                ]
            },
            {"U": "u"},
            {12: b"a", 77: b"u", 55: b"\x03\x01"},
        ),
        ({"provide": [{"option": "host-name", "value": "a", "fromArg": "H"}]}, {"H": "b"}, {12: b"b", 55: b"\x03\x01"}),
        ({"provide": [{"option": "dhcp-client-identifier", "value": "mine"}]}, {}, {61: b"mine", 55: b"\x03\x01"}),
    ],
)
def test_what_is_provided_and_requested(ipam: dict[str, Any], args: dict[str, str], sent: dict[int, bytes]) -> None:
    """By name or number; an argument goes before a value; skipDefault in any entry counts for all."""
    assert options.to_send(ipam, args) == sent


@pytest.mark.parametrize(
    ("ipam", "field"),
    [
        ({"provide": {}}, "ipam.provide"), ({"provide": [1]}, "ipam.provide"), ({"request": "x"}, "ipam.request"),
        ({"provide": [{}]}, r"ipam.provide\[0\].option"), ({"provide": [{"option": "0"}]}, r"ipam.provide\[0\].option"),
        ({"provide": [{"option": "255"}]}, r"ipam.provide\[0\].option"), ({"provide": [{"option": 12}]}, r"ipam.provide\[0\].option"),
        ({"provide": [{"option": "1" * 5000}]}, r"ipam.provide\[0\].option"),
        ({"provide": [{"option": "53", "value": "x"}]}, r"ipam.provide\[0\].option"),
        ({"provide": [{"option": "12", "value": 5}]}, r"ipam.provide\[0\].value"),
        ({"provide": [{"option": "12", "value": "x" * 256}]}, r"ipam.provide\[0\]"),
        ({"request": [{}, {"option": "nonsense"}]}, r"ipam.request\[1\].option"),
        ({"request": [{"skipDefault": "yes"}]}, r"ipam.request\[0\].skipDefault"),
    ],
)  # fmt: skip
def test_bad_options_are_refused_by_their_field(ipam: dict[str, Any], field: str) -> None:
    """Before anybody is asked: STATUS says it, too."""
    with pytest.raises(InvalidArgument, match=field):
        options.to_send(ipam, {})
    request = Request(config={"name": "net", "ipam": {"type": "dhcp", "daemonSocketPath": "/nowhere", **ipam}})
    with pytest.raises(InvalidArgument, match=field):
        plugin.status(request)


def test_an_identifier_is_never_longer_than_an_option() -> None:
    """Cut off as by the reference plugin."""
    assert options.client_id("c1", "net", "eth0") == b"\0c1/net/eth0"
    assert len(options.client_id("c" * 300, "net", "eth0")) == 255


class Talk:
    """A client, the time, and a server's answers to what it said last."""

    def __init__(self, *, give_up: float = 60, **more: Any) -> None:
        self.client = Client(_MAC, {61: b"\0id", 55: b"\x03\x01"}, Timing(10, 62, give_up), lambda: 0.5, **more)
        self.now = 1000.0
        self.said: list[Send] = []

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
    assert (talk.client.state, talk.last.kind, talk.last.seconds) == (states.REQUESTING, packet.ASK, 3)
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
    assert command.parsed(arguments) == {"socket_path": "/run/cni/dhcp.sock", **found}


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
