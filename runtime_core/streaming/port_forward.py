"""Port-forward: each pair of a data and an error stream is one TCP connection to a port of the pod.

Source: k8s.io/streaming, portforward.k8s.io: SPDY streams with the headers streamType, port and requestID; or WebSocket
channels, two for each port that the request has named.
"""

from __future__ import annotations

from typing import Any

from runtime_core.kernel.decimal_number import parse_decimal
from runtime_core.streaming.channels import Aborted, Data, Ended, Event, Framing, Opened
from runtime_core.streaming.connection import ClientConnection
from runtime_core.streaming.loop import Loop
from runtime_core.streaming.pod_port import PodPort

_PAIR_SECONDS = 30.0
_HIGHEST_PORT = 65535


class _Pair:
    """The two channels of one connection; -1 for one that has not come."""

    __slots__ = ("channels", "is_open", "key", "pod_port", "port")

    def __init__(self, key: str, port: int) -> None:
        self.key, self.port = key, port
        self.channels = {"data": -1, "error": -1}
        self.pod_port: PodPort | None = None
        self.is_open = True

    def is_complete(self) -> bool:
        return min(self.channels.values()) >= 0


class PortForward:
    """All connections that one client forwards. `grant`: {"kind": "port_forward", "pod_id", "ports"}."""

    has_begun = True

    def __init__(
        self, loop: Loop, client: ClientConnection, framing: Framing, grant: dict[str, Any], *, is_numbered: bool
    ) -> None:
        """`is_numbered`: two channels for each of grant["ports"], all of them open."""
        self._loop, self._client, self._framing, self._grant = loop, client, framing, grant
        self._is_numbered = is_numbered
        self._pairs: dict[str, _Pair] = {}
        self._by_channel: dict[int, _Pair] = {}
        self._has_room = True
        self.is_over = False
        client.on_room = self._set_room

    def receive(self, event: Event) -> None:
        """One event of the connection."""
        if isinstance(event, Opened):
            self._open_channel(event)
        elif isinstance(event, (Data, Ended, Aborted)):
            pair = self._by_channel.get(event.channel)
            if pair is not None and pair.channels["data"] == event.channel:
                self._receive_data(pair, event)

    def _receive_data(self, pair: _Pair, event: Data | Ended | Aborted) -> None:
        if isinstance(event, Aborted):
            self._drop(pair)
        elif pair.pod_port is None:
            self._fail(pair, "data came before the error stream")
        elif isinstance(event, Data):
            pair.pod_port.write(event.data)
        else:
            pair.pod_port.finish()

    def _open_channel(self, event: Opened) -> None:
        key, kind, port = self._numbered(event.channel) if self._is_numbered else _named(event)
        pair = self._pairs.get(key) or _Pair(key, port)
        if port == 0 or pair.channels.get(kind, 0) >= 0:
            self._client.send([self._framing.abort(event.channel)])
            return
        if key not in self._pairs:
            self._pairs[key] = pair
            self._loop.call_after(_PAIR_SECONDS, lambda: self._expire(pair))
        pair.channels[kind] = event.channel
        self._by_channel[event.channel] = pair
        if pair.is_complete():
            self._connect(pair)

    def _numbered(self, channel: int) -> tuple[str, str, int]:
        """The client is told which port a channel is for."""
        port = self._grant["ports"][channel // 2]
        self._client.send(self._framing.frame(channel, port.to_bytes(2, "little")))
        return str(channel // 2), ("data", "error")[channel % 2], port

    def _connect(self, pair: _Pair) -> None:
        def send(data: bytes) -> None:
            self._client.send(self._framing.frame(pair.channels["data"], data))

        pair.pod_port = PodPort(
            self._loop,
            self._client,
            pair.port,
            on_data=send,
            on_end=lambda: self._client.send([self._framing.finish(pair.channels["data"])]),
            on_failure=lambda problem: self._fail(pair, problem),
            on_closed=lambda: self._drop(pair),
        )
        pair.pod_port.set_paused(not self._has_room)

    def _expire(self, pair: _Pair) -> None:
        if pair.is_open and not pair.is_complete():
            self._fail(pair, f"its other stream has not come within {_PAIR_SECONDS:.0f} s")

    def _fail(self, pair: _Pair, problem: str) -> None:
        if pair.channels["error"] >= 0:
            message = f"error forwarding port {pair.port} to pod {self._grant['pod_id']}: {problem}"
            self._client.send(self._framing.frame(pair.channels["error"], message.encode()))
        self._drop(pair)

    def _drop(self, pair: _Pair) -> None:
        """End what is still open of it, on both sides."""
        if not pair.is_open:
            return
        pair.is_open = False
        self._pairs.pop(pair.key, None)
        for channel in pair.channels.values():
            self._by_channel.pop(channel, None)
            self._client.send([self._framing.finish(channel)])
        if pair.pod_port is not None:
            pair.pod_port.close()

    def _set_room(self, has_room: bool) -> None:
        self._has_room = has_room
        for pair in self._pairs.values():
            if pair.pod_port is not None:
                pair.pod_port.set_paused(not has_room)

    def close(self) -> None:
        """Give everything up."""
        self.is_over = True
        for pair in list(self._pairs.values()):
            self._drop(pair)


def _named(event: Opened) -> tuple[str, str, int]:
    """Request, kind and port of a SPDY stream; port 0 when it names none."""
    kind, port = event.headers.get("streamtype", ""), event.headers.get("port", "")
    # Old clients number no requests; their error stream comes first, two numbers before the data.
    key = event.headers.get("requestid") or str(event.channel - (2 if kind == "data" else 0))
    return key, kind, parse_decimal(port, _HIGHEST_PORT) or 0
