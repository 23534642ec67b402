"""The DHCP daemon: one loop over its socket, the interfaces that wait for an answer, and the times of the leases. Cold.

A request is a line of JSON, and so is its answer; docs/adr/0013-dhcp-daemon.md has the protocol.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import sys

from cni_plugins.ipam.dhcp.attachment import clock
from cni_plugins.ipam.dhcp.client import Timing
from cni_plugins.ipam.dhcp.lease_files import LeaseFiles
from cni_plugins.ipam.dhcp.leases import Leases
from runtime_core.errors import InvalidArgument, TrivetError, from_exception, from_oserror, name_of_kind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cni_plugins.ipam.dhcp.attachment import Attachment

DEFAULT_SOCKET = "/run/cni/dhcp.sock"
_MOST_REQUEST, _MOST_CONNECTIONS = 1024 * 1024, 512
_ANSWER_SECONDS = 2.0


def serve(
    socket_path: str = DEFAULT_SOCKET,
    *,
    host_prefix: str = "",
    pidfile: str = "",
    timeout: float = 10.0,
    resend_max: float = 62.0,
    resend_timeout: float = 208.0,
    is_broadcast: bool = False,
) -> None:
    """Until SIGTERM or SIGINT; leases are kept for the next daemon, beside the socket. In a process's main thread."""
    path = host_prefix + socket_path
    listener = _listener(path)
    try:
        if pidfile:
            _write_pidfile(pidfile)
        listener.listen(_MOST_CONNECTIONS)
        _log(f"listens on {path}")
        leases = Leases(
            LeaseFiles(f"{path}.leases"), Timing(timeout, resend_max, resend_timeout), host_prefix, is_broadcast=is_broadcast
        )
        _Loop(listener, leases).run()
    finally:
        listener.close()
        for left in filter(None, ("" if _is_passed() else path, pidfile)):
            _remove(left)


class _Connection:
    """A plugin that asks, and from then on waits."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.received = sock, bytearray()
        self.waits_for: Attachment | None = None
        self.ipam: dict[str, Any] = {}


class _Loop:
    def __init__(self, listener: socket.socket, leases: Leases) -> None:
        self._listener, self._leases = listener, leases
        self._selector = selectors.DefaultSelector()
        self._connections: dict[int, _Connection] = {}
        self._watched: dict[int, Attachment] = {}
        self._is_ending = False

    def run(self) -> None:
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.fileno())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        self._selector.register(reader, selectors.EVENT_READ, lambda: reader.recv(64))
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        with reader, writer, self._selector:
            while not self._is_ending:
                self._watch()
                deadline = self._leases.deadline()
                for key, _events in self._selector.select(None if deadline is None else max(0.0, deadline - clock())):
                    if self._selector.get_map().get(key.fd) is key:  # an earlier event of the round may have closed it
                        key.data()
                self._leases.wake()
                self._send_results()
            signal.set_wakeup_fd(-1)

    def _end(self, _number: int, _frame: object) -> None:
        self._is_ending = True

    def _watch(self) -> None:
        """The sockets of attachments come and go with their exchanges."""
        wanted = {
            attachment.exchange.fileno(): attachment for attachment in self._leases.all() if attachment.exchange is not None
        }
        for descriptor in [fd for fd, attachment in self._watched.items() if wanted.get(fd) is not attachment]:
            del self._watched[descriptor]
            self._selector.unregister(descriptor)
        for descriptor, attachment in wanted.items():
            if descriptor not in self._watched:
                self._watched[descriptor] = attachment
                self._selector.register(descriptor, selectors.EVENT_READ, attachment.receive)

    def _accept(self) -> None:
        try:
            sock, _address = self._listener.accept()
        except OSError as error:
            _log(f"accept: {error}")
            return
        if len(self._connections) >= _MOST_CONNECTIONS:
            sock.close()
            return
        self._watch()  # the number of the descriptor may be that of an exchange that was closed in this round
        sock.setblocking(False)
        connection = self._connections[sock.fileno()] = _Connection(sock)
        self._selector.register(sock, selectors.EVENT_READ, lambda: self._read(connection))

    def _read(self, connection: _Connection) -> None:
        try:
            data = connection.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        connection.received += data
        if not data or len(connection.received) > _MOST_REQUEST:
            if connection.waits_for is not None:  # the plugin was killed: DEL will ask for nothing that it knows
                self._leases.abandon(connection.waits_for)
            self._close(connection)
        elif connection.received.endswith(b"\n") and connection.waits_for is None:
            self._serve(connection)

    def _serve(self, connection: _Connection) -> None:
        try:
            request = _parse_request(bytes(connection.received))
            answer = self._leases.serve(request)
        except (TrivetError, OSError) as error:
            self._answer(connection, _error_object(error))
            return
        if isinstance(answer, dict):
            self._answer(connection, {"result": answer})
        else:
            connection.waits_for, connection.ipam = answer, request["ipam"]

    def _send_results(self) -> None:
        for connection in list(self._connections.values()):
            attachment = connection.waits_for
            if attachment is not None and not attachment.is_acquiring:
                try:
                    answer = {"result": self._leases.finish_add(attachment, connection.ipam)}
                except TrivetError as error:
                    answer = _error_object(error)
                self._answer(connection, answer)
        self._leases.refresh_all()

    def _answer(self, connection: _Connection, answer: dict[str, Any]) -> None:
        try:
            connection.sock.settimeout(_ANSWER_SECONDS)
            connection.sock.sendall(json.dumps(answer).encode() + b"\n")
        except OSError as error:
            _log(f"a plugin did not take its answer: {error}")
        self._close(connection)

    def _close(self, connection: _Connection) -> None:
        self._selector.unregister(connection.sock)
        del self._connections[connection.sock.fileno()]
        connection.sock.close()


def _parse_request(line: bytes) -> dict[str, Any]:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"the request is not JSON: {error}") from None
    kinds = {"verb": str, "network": str, "container_id": str, "interface": str, "netns": str, "ipam": dict, "args": dict}
    if not isinstance(request, dict) or not all(isinstance(request.get(key), kind) for key, kind in kinds.items()):
        raise InvalidArgument(f"the request is not an object with {', '.join(kinds)}")
    return request


def _error_object(error: Exception) -> dict[str, Any]:
    named = from_exception(error, "DHCP daemon")
    return {"error": name_of_kind(named), "message": str(named)}


def _listener(path: str) -> socket.socket:
    """The socket that the init system passes, or one of our own."""
    if _is_passed():
        if os.environ["LISTEN_FDS"] != "1":
            raise InvalidArgument(f"LISTEN_FDS: {os.environ['LISTEN_FDS']} sockets were passed, one is wanted")
        return socket.socket(fileno=3)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        os.makedirs(os.path.dirname(path) or ".", 0o700, exist_ok=True)
        if os.path.exists(path):
            _check_no_other_daemon(path)
            os.unlink(path)
        mask = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(mask)
    except (OSError, TrivetError) as error:
        listener.close()
        if isinstance(error, TrivetError):
            raise
        raise from_oserror(error, f"-socketpath: {path}") from error
    return listener


def _is_passed() -> bool:
    """sd_listen_fds(3)."""
    return os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS", "0") != "0"


def _check_no_other_daemon(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            return
    raise InvalidArgument(f"-socketpath: a daemon listens on {path} already")


def _write_pidfile(path: str) -> None:
    if not os.path.isabs(path):
        raise InvalidArgument(f"-pidfile: {path!r} is not absolute")
    try:
        with open(path, "w") as file:
            file.write(str(os.getpid()))
    except OSError as error:
        raise from_oserror(error, f"-pidfile: {path}") from error


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def _log(text: str) -> None:
    print(f"dhcp: {text}", file=sys.stderr, flush=True)
