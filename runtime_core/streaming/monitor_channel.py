"""A stream's own connection to the monitor of its pod: what it has begun there ends with this connection."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Any

from runtime_core.errors import FailedPrecondition, from_name
from runtime_core.launcher import messages

_ANSWER_SECONDS = 90.0


class MonitorChannel:
    """Blocking calls, and events to be received when the descriptor is readable."""

    def __init__(self, directory: str) -> None:
        """Connect to <directory>/monitor.sock; FailedPrecondition when nobody listens there."""
        # A socket's name holds 107 bytes; through a descriptor the directory may be of any length.
        folder = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            self._socket.connect(f"/proc/self/fd/{folder}/monitor.sock")
        except OSError as error:
            self._socket.close()
            raise FailedPrecondition(f"the pod's monitor does not answer: {error.strerror}") from error
        finally:
            os.close(folder)
        self._events: list[dict[str, Any]] = []
        self._next = 0

    def fileno(self) -> int:
        """Readable when an event has come, or the end."""
        return self._socket.fileno()

    def call(self, operation: str, request: dict[str, Any], descriptors: Sequence[int] = ()) -> tuple[dict[str, Any], list[int]]:
        """Ask and wait: the result and the descriptors that came with it; raises what the monitor raised."""
        self._next += 1
        self._socket.settimeout(_ANSWER_SECONDS)
        try:
            messages.send(self._socket, {"id": self._next, "op": operation, **request}, descriptors)
            while True:
                message, received = messages.receive(self._socket)
                if message.get("id") == self._next:
                    break
                self._events.append(message)
        except (EOFError, OSError) as error:
            raise FailedPrecondition(f"the pod's monitor has not answered: {error}") from error
        finally:
            self._socket.setblocking(False)
        if "error" in message:
            raise from_name(message["error"]["kind"], message["error"]["message"])
        return message["result"], received

    def events(self) -> list[dict[str, Any]]:
        """Those that have come; EOFError when the monitor has gone."""
        found, self._events = self._events, []
        while True:
            try:
                message, _descriptors = messages.receive(self._socket)
            except BlockingIOError:
                return found
            except (EOFError, OSError):
                if found:
                    return found  # the end is told by the next call
                raise
            found.append(message)

    def close(self) -> None:
        """The monitor ends what was begun by this connection."""
        self._socket.close()
