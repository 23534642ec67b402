"""DHCP without a network: messages and frames as bytes, options as they are configured and answered."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cni_plugins.ipam.dhcp import frame, options, packet, plugin
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
        options.cni_result(packet.decode(data), {"request": [{"option": "6"}, {"option": "15"}]})
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
    assert options.cni_result(_ack(**found), {}) == {"ips": ips, "routes": routes, "dns": {}}


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
    assert options.message_options(ipam, args) == sent


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
        options.message_options(ipam, {})
    request = Request(config={"name": "net", "ipam": {"type": "dhcp", "daemonSocketPath": "/nowhere", **ipam}})
    with pytest.raises(InvalidArgument, match=field):
        plugin.status(request)


def test_an_identifier_is_never_longer_than_an_option() -> None:
    """Cut off as by the reference plugin."""
    assert options.client_id("c1", "net", "eth0") == b"\0c1/net/eth0"
    assert len(options.client_id("c" * 300, "net", "eth0")) == 255
