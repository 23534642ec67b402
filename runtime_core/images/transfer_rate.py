"""How long a registry's answer is waited for: without a byte, whole, or by its rate."""

from __future__ import annotations

import dataclasses
import http.client
import io
import socket
import time
from typing import Any

from runtime_core.errors import DeadlineExceeded

#: seconds of waiting over which a blob's rate is measured
_WINDOW = 60.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TransferLimits:
    """How long a registry is waited for."""

    #: seconds without a byte
    silence: float = 60.0
    #: seconds that a manifest or a token may take, and the head of any answer
    deadline: float = 60.0
    #: bytes a second that a blob must bring, over each minute that is waited for it
    least_rate: int = 1024


class TransferRate:
    """One answer's time: whole until `transfer`, by its rate from then on."""

    def __init__(self, host: str, limits: TransferLimits) -> None:
        self._host, self._limits = host, limits
        self._end: float | None = time.monotonic() + limits.deadline
        self._waited = 0.0
        self._received = 0

    def wait(self) -> float:
        """Seconds for which the next bytes may be waited for; DeadlineExceeded when there are none."""
        if self._end is None:
            return self._limits.silence
        left = self._end - time.monotonic()
        if left <= 0:
            raise self._is_over()
        return min(left, self._limits.silence)

    def received(self, size: int, waited: float) -> None:
        """DeadlineExceeded when a window has brought too little."""
        self._waited, self._received = self._waited + waited, self._received + size
        if self._end is not None or self._waited < _WINDOW:
            return
        if self._received < self._limits.least_rate * self._waited:
            raise DeadlineExceeded(
                f"{self._host} has sent {self._received} bytes in {self._waited:.0f} s, "
                f"less than {self._limits.least_rate} bytes a second"
            )
        self._waited, self._received = 0.0, 0

    def timeout_error(self, otherwise: str) -> DeadlineExceeded:
        """What to say of a wait that was in vain."""
        if self._end is not None and time.monotonic() >= self._end:
            return self._is_over()
        return DeadlineExceeded(f"{self._host} {otherwise} for {self._limits.silence:g} s")

    def transfer(self) -> None:
        self._end, self._waited, self._received = None, 0.0, 0

    def _is_over(self) -> DeadlineExceeded:
        return DeadlineExceeded(f"{self._host} has not sent all of its answer within {self._limits.deadline:g} s")


class _PacedSocket(io.RawIOBase):
    """A connection's bytes, at a pace: those of the head, of chunks' sizes and of the body alike."""

    def __init__(self, connection: socket.socket, rate: TransferRate) -> None:
        self._connection, self._pace = connection, rate
        self._file = connection.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._connection.settimeout(self._pace.wait())
        started = time.monotonic()
        size = self._file.readinto(buffer)
        self._pace.received(size or 0, time.monotonic() - started)
        return size

    def close(self) -> None:
        self._file.close()
        super().close()


class PacedResponse(http.client.HTTPResponse):
    def __init__(self, connection: socket.socket, *arguments: Any, rate: TransferRate, **more: Any) -> None:
        super().__init__(connection, *arguments, **more)
        self.fp.close()
        self.fp = io.BufferedReader(_PacedSocket(connection, rate))
