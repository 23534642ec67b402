"""The daemon's side of all monitors: a connection to each, and one thread that reads their events."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any

from runtime_core.errors import DeadlineExceeded, TrivetError, Unavailable, from_name
from runtime_core.interfaces.runtime import PodLost
from runtime_core.kernel import unexpected_errors
from runtime_core.launcher import messages

_ANSWER_SECONDS = 120.0


class _Reply:
    __slots__ = ("arrived", "error", "result")

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self.result: dict[str, Any] = {}
        self.error: TrivetError | None = None


class Connection:
    """One monitor. `call` may be used from any thread; replies and events come through `Monitors`."""

    def __init__(self, pod_id: str, sock: socket.socket, on_event: Callable[[str, dict[str, Any]], None]) -> None:
        self.pod_id, self.sock = pod_id, sock
        self._on_event = on_event
        self._lock = threading.Lock()
        self._replies: dict[int, _Reply] = {}
        self._next = 0
        self.is_lost = False
        self.is_closing = False

    def call(
        self,
        operation: str,
        request: dict[str, Any],
        descriptors: Sequence[int] = (),
        timeout: float = _ANSWER_SECONDS,
    ) -> dict[str, Any]:
        """Ask, wait, return the result or raise what the monitor raised."""
        reply = _Reply()
        with self._lock:
            if self.is_lost:
                raise self._died()
            self._next += 1
            number = self._next
            self._replies[number] = reply
            try:
                messages.send(self.sock, {"id": number, "op": operation, **request}, descriptors)
            except (BrokenPipeError, ConnectionResetError):
                del self._replies[number]
                raise self._died() from None
            except BaseException as error:
                del self._replies[number]
                if not isinstance(error, OSError):
                    raise
                raise Unavailable(f"the monitor of pod {self.pod_id} does not listen: {error}") from error
        if not reply.arrived.wait(timeout):
            raise DeadlineExceeded(f"the monitor of pod {self.pod_id} has not answered {operation} in {timeout} s")
        if reply.error is not None:
            raise reply.error
        return reply.result

    def read_message(self) -> bool:
        """Take one message in; False when the monitor has gone."""
        try:
            message, _descriptors = messages.receive(self.sock)
        except (EOFError, OSError):
            self._disconnect()
            return False
        if "event" in message:
            self._on_event(self.pod_id, message)
            return True
        reply = self._replies.pop(message["id"], None)
        if reply is not None:
            reply.result = message.get("result", {})
            if "error" in message:
                reply.error = from_name(message["error"]["kind"], message["error"]["message"])
            reply.arrived.set()
        return True

    def _disconnect(self) -> None:
        with self._lock:
            self.is_lost = True
            waiting, self._replies = self._replies, {}
        for reply in waiting.values():
            reply.error = self._died()
            reply.arrived.set()
        self._on_event(self.pod_id, {"event": "lost"})

    def _died(self) -> PodLost:
        return PodLost(f"the monitor of pod {self.pod_id} has died")


class Monitors:
    """All connections, and the thread that listens to them."""

    def __init__(self, on_event: Callable[[str, dict[str, Any]], None], on_lost: Callable[[Connection], None]) -> None:
        self._on_event, self._on_lost = on_event, on_lost
        self._epoll = select.epoll()
        self._by_pod: dict[str, Connection] = {}
        self._by_descriptor: dict[int, Connection] = {}
        threading.Thread(target=self._listen, name="monitors", daemon=True).start()

    def connect(self, pod_id: str, directory: str) -> Connection:
        """Connect to <directory>/monitor.sock; PodLost when nobody listens there."""
        # A socket's name holds 107 bytes; through a descriptor the directory may be of any length.
        try:
            folder = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise PodLost(f"pod {pod_id} has no monitor: {directory} is not there") from None
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            sock.connect(f"/proc/self/fd/{folder}/monitor.sock")
        except (FileNotFoundError, ConnectionRefusedError) as error:
            sock.close()
            raise PodLost(f"the monitor of pod {pod_id} has died: {error.strerror}") from error
        except OSError:
            sock.close()
            raise
        finally:
            os.close(folder)
        connection = Connection(pod_id, sock, self._on_event)
        self._by_pod[pod_id] = self._by_descriptor[sock.fileno()] = connection
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        return connection

    def get(self, pod_id: str) -> Connection:
        """The pod's connection; PodLost when there is none."""
        connection = self._by_pod.get(pod_id)
        if connection is None:
            raise PodLost(f"pod {pod_id} has no monitor")
        return connection

    def forget(self, pod_id: str) -> None:
        """Forget the pod's connection. Idempotent."""
        self._by_pod.pop(pod_id, None)

    def _hear(self, connection: Connection) -> bool:
        """False when the monitor has gone. What nobody foresaw in one message leaves the others to be heard."""
        try:
            return connection.read_message()
        except Exception:  # noqa: BLE001  this thread is the only one that listens
            unexpected_errors.print_stack(f"hearing the monitor of pod {connection.pod_id}")
            return True

    def _listen(self) -> None:
        while True:
            for descriptor, _event in self._epoll.poll():
                connection = self._by_descriptor[descriptor]
                if self._hear(connection):
                    continue
                self._epoll.unregister(descriptor)
                del self._by_descriptor[descriptor]
                with contextlib.suppress(OSError):
                    connection.sock.close()
                if self._by_pod.get(connection.pod_id) is connection:
                    del self._by_pod[connection.pod_id]
                    if not connection.is_closing:
                        # Cleaning up after it waits for processes to die: not in this thread.
                        threading.Thread(target=self._on_lost, args=(connection,), daemon=True).start()
