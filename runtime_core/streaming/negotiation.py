"""Which subprotocol a client and a stream have in common, and how it is framed. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from runtime_core.streaming.channels import Framing
from runtime_core.streaming.remote_command import WEBSOCKET_CHANNELS
from runtime_core.streaming.spdy import SpdyFraming
from runtime_core.streaming.upgrade import UpgradeRequest
from runtime_core.streaming.websocket import ChannelFraming, TunnelFraming

_REMOTE_COMMAND_SPDY = ("v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")
_REMOTE_COMMAND_WEBSOCKET = (
    "v5.channel.k8s.io", "v5.base64.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io", "channel.k8s.io",
    "base64.channel.k8s.io",
)  # fmt: skip
_PORT_FORWARD_SPDY = ("portforward.k8s.io",)
_TUNNEL = "SPDY/3.1+portforward.k8s.io"
_PORT_FORWARD_WEBSOCKET = (_TUNNEL, "v4.channel.k8s.io", "v4.base64.channel.k8s.io")


@dataclass(frozen=True, slots=True)
class Choice:
    """`is_numbered`: channels have numbers and no headers, as those of WebSocket subprotocols."""

    protocol: str
    framing: Framing
    is_numbered: bool


def supported(request: UpgradeRequest, grant: dict[str, Any]) -> tuple[str, ...]:
    """The subprotocols for this kind of stream and connection."""
    if grant["kind"] == "portforward":
        return _PORT_FORWARD_WEBSOCKET if request.is_websocket else _PORT_FORWARD_SPDY
    return _REMOTE_COMMAND_WEBSOCKET if request.is_websocket else _REMOTE_COMMAND_SPDY


def choose(request: UpgradeRequest, grant: dict[str, Any]) -> Choice | None:
    """The client's first that is supported; "" when it names none, as the oldest ones do; None when there is none."""
    known = supported(request, grant)
    protocol = next((name for name in request.protocols if name in known), None) if request.protocols else ""
    if protocol is None:
        return None
    if not request.is_websocket:
        return Choice(protocol, SpdyFraming(), is_numbered=False)
    if protocol == _TUNNEL:
        return Choice(protocol, TunnelFraming(SpdyFraming()), is_numbered=False)
    channels = 2 * len(grant["ports"]) if grant["kind"] == "portforward" else len(WEBSOCKET_CHANNELS)
    framing = ChannelFraming(channels, is_base64="base64" in protocol, has_close=protocol.startswith("v5."))
    return Choice(protocol, framing, is_numbered=True)
