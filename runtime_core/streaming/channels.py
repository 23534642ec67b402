"""What the protocols of streaming have in common: independent channels over one connection. No I/O.

Kubernetes speaks SPDY/3.1 and several forms of WebSocket messages; sessions see channels only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from runtime_core.errors import InvalidArgument


class ProtocolError(InvalidArgument):
    """The peer does not keep to the protocol: the connection is given up."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The client has opened a channel; `headers` by lower-case name (SPDY alone has them)."""

    channel: int
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes for a channel; `data` is valid until the next `receive`."""

    channel: int
    data: bytes | memoryview


@dataclass(frozen=True, slots=True)
class Ended:
    """The client sends nothing more on this channel; it may still receive (a half-close)."""

    channel: int


@dataclass(frozen=True, slots=True)
class Aborted:
    """The client gives up this channel in both directions."""

    channel: int


@dataclass(frozen=True, slots=True)
class Closed:
    """The client closes the connection."""


Event = Opened | Data | Ended | Aborted | Closed


class Framing(Protocol):
    """Bytes of a connection ↔ events of its channels."""

    def receive(self, data: bytes) -> list[Event]:
        """What `data`, the next bytes from the client, means; ProtocolError when it is against the rules."""
        ...

    def take_replies(self) -> bytes:
        """What it answers by itself, such as pings: to be sent before anything else, once."""
        ...

    def frame(self, channel: int, data: bytes) -> Sequence[bytes]:
        """The pieces to send, one after the other, for `data` on `channel`."""
        ...

    def finish(self, channel: int) -> bytes:
        """What tells the client that nothing more comes on `channel`; b"" where the protocol has no word for it."""
        ...

    def abort(self, channel: int) -> bytes:
        """What tells the client that `channel` is given up."""
        ...

    def close(self) -> bytes:
        """What is said before the connection is closed."""
        ...
