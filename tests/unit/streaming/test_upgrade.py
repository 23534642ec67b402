"""The HTTP request at the beginning of a stream, and which protocol comes of it."""

from __future__ import annotations

from typing import Any

import pytest

from runtime_core.errors import InvalidArgument
from runtime_core.streaming import negotiation, upgrade

SPDY = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
KEY = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
WEBSOCKET = f"{KEY}Sec-WebSocket-Version: 13\r\n"
EXEC: dict[str, Any] = {"kind": "exec"}
FORWARD: dict[str, Any] = {"kind": "portforward", "ports": [80, 81]}


def request(headers: str, line: str = "POST /exec/token?x=1 HTTP/1.1") -> bytes:
    return f"{line}\r\nHost: here\r\n{headers}\r\n".encode()


def read(headers: str) -> upgrade.UpgradeRequest:
    found = upgrade.RequestReader().receive(request(headers))
    assert found is not None
    return found


def test_a_request_may_come_byte_by_byte() -> None:
    """What follows it is kept."""
    reader, content = upgrade.RequestReader(), request(f"{SPDY}X-Stream-Protocol-Version: v4.channel.k8s.io, channel.k8s.io\r\n")
    for number in range(len(content) - 1):
        assert reader.receive(content[number : number + 1]) is None
    found = reader.receive(content[-1:] + b"\x80\x03")
    assert found == upgrade.UpgradeRequest("/exec/token", False, ("v4.channel.k8s.io", "channel.k8s.io"), "", b"\x80\x03")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"\x16\x03\x01\x02\x00\x01", "HTTP"),  # a TLS hello
        (b"NONSENSE\r\n\r\n", "HTTP"),
        (request(""), "Connection: Upgrade"),
        (request("Upgrade: SPDY/3.1\r\n"), "Connection: Upgrade"),
        (request("Connection: Upgrade\r\n"), "neither"),
        (request("Connection: Upgrade\r\nUpgrade: h2c\r\n"), "neither"),
        (request(KEY), "Version"),
        (request("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"), "Key"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * upgrade.LARGEST_REQUEST, "HTTP"),
    ],
)
def test_what_is_no_such_request_is_refused(content: bytes, word: str) -> None:
    """By what it lacks."""
    with pytest.raises(InvalidArgument, match=word):
        upgrade.RequestReader().receive(content)


@pytest.mark.parametrize(
    ("headers", "grant", "protocol", "framing"),
    [
        (SPDY, EXEC, "", "SpdyFraming"),
        (f"{SPDY}X-Stream-Protocol-Version: v9\r\nX-Stream-Protocol-Version: v3.channel.k8s.io\r\n", EXEC, "v3.channel.k8s.io", "SpdyFraming"),
        (f"{SPDY}X-Stream-Protocol-Version: portforward.k8s.io\r\n", FORWARD, "portforward.k8s.io", "SpdyFraming"),
        (WEBSOCKET, EXEC, "", "ChannelFraming"),
        (f"{WEBSOCKET}Sec-WebSocket-Protocol: v5.channel.k8s.io, v4.channel.k8s.io\r\n", EXEC, "v5.channel.k8s.io", "ChannelFraming"),
        (f"{WEBSOCKET}Sec-WebSocket-Protocol: base64.channel.k8s.io\r\n", EXEC, "base64.channel.k8s.io", "ChannelFraming"),
        (f"{WEBSOCKET}Sec-WebSocket-Protocol: SPDY/3.1+portforward.k8s.io\r\n", FORWARD, "SPDY/3.1+portforward.k8s.io", "TunnelFraming"),
        (f"{WEBSOCKET}Sec-WebSocket-Protocol: v4.channel.k8s.io\r\n", FORWARD, "v4.channel.k8s.io", "ChannelFraming"),
    ],
)  # fmt: skip
def test_the_clients_first_protocol_that_is_known_is_taken(
    headers: str, grant: dict[str, Any], protocol: str, framing: str
) -> None:
    """And named in the answer."""
    found = read(headers)
    choice = negotiation.choose(found, grant)
    assert choice is not None and (choice.protocol, type(choice.framing).__name__) == (protocol, framing)
    answer = upgrade.accept(found, protocol).decode()
    assert answer.startswith("HTTP/1.1 101 ") and (protocol in answer)


@pytest.mark.parametrize(
    ("headers", "grant"),
    [
        (f"{SPDY}X-Stream-Protocol-Version: v5.channel.k8s.io\r\n", EXEC),
        (f"{WEBSOCKET}Sec-WebSocket-Protocol: chat\r\n", EXEC),
        (f"{SPDY}X-Stream-Protocol-Version: v4.channel.k8s.io\r\n", FORWARD),
    ],
)
def test_where_none_is_known_there_is_none(headers: str, grant: dict[str, Any]) -> None:
    """The refusal names those that are."""
    found = read(headers)
    assert negotiation.choose(found, grant) is None
    assert (
        negotiation.supported(found, grant)[0]
        in upgrade.refuse("403 Forbidden", "no", negotiation.supported(found, grant)).decode()
    )


def test_a_websocket_key_is_answered_as_rfc_6455_says() -> None:
    """The example of its section 1.3."""
    assert "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in upgrade.accept(read(WEBSOCKET), "").decode()
