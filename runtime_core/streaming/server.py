"""The streaming server: a process that forks one for each connection and keeps the tokens.

Theory of operation. The launcher forks it when the first exec, attach or port-forward is asked for; it brings the
libraries that a stream needs into itself alone. The daemon tells it what each token allows. A connection is a
process: when it ends, whatever it had is gone with it. A token is good once and for a minute. When the daemon goes,
no connection is accepted any more, and those that are there go on to their end.

From the daemon: {"id", "token", "grant", "namespace", "seconds"} → {"id"} or {"id", "error"}; `namespace` is the path of
                 a network namespace, or "".
From a session:  {"kind", "token"} → {"grant"} with the namespace's descriptor if there is one, or {"refused"}.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
import time
from typing import Any

from runtime_core.kernel import syscalls
from runtime_core.launcher import messages

MOST_TOKENS = 1000
MOST_SESSIONS = 1024


def main(argument: dict[str, Any], descriptors: list[int]) -> None:
    """The launcher's job. `argument`: {"paths", "settings"}; `descriptors`: the daemon's socket, the listener."""
    sys.path.extend(argument["paths"])
    StreamingServer(argument["settings"], *descriptors).serve()


class _Token:
    __slots__ = ("deadline", "grant", "namespace")

    def __init__(self, grant: dict[str, Any], namespace: str, deadline: float) -> None:
        self.grant, self.namespace, self.deadline = grant, namespace, deadline


class StreamingServer:
    """One thread: see the module."""

    def __init__(self, settings: dict[str, Any], daemon: int, listener: int) -> None:
        from runtime_core.streaming import session, tls

        syscalls.set_process_name("trivet-streams")
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        self._settings, self._session = settings, session
        self._context = tls.context(settings)
        self._daemon: socket.socket | None = socket.socket(fileno=daemon)
        self._listener: socket.socket | None = socket.socket(fileno=listener)
        self._tokens: dict[str, _Token] = {}
        #: asking socket of a session → the same as an object; a session closes its own when it ends
        self._sessions: dict[int, socket.socket] = {}
        self._is_full = False
        self._poller = select.poll()
        for watched in (self._daemon, self._listener):
            self._poller.register(watched, select.POLLIN)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a session ended: the kernel reaps
        gc.collect()
        gc.freeze()

    def serve(self) -> None:
        """Until the daemon has gone and the last session has ended."""
        while self._daemon is not None or self._sessions:
            ready = [descriptor for descriptor, _event in self._poller.poll()]
            if self._daemon is not None and self._daemon.fileno() in ready:
                self._hear_daemon(self._daemon)  # first: a connection may have come with a token that is still in there
            for descriptor in ready:
                if descriptor in self._sessions:
                    self._hear_session(self._sessions[descriptor])
                elif self._listener is not None and descriptor == self._listener.fileno():
                    self._accept(self._listener)

    # -- the daemon

    def _hear_daemon(self, daemon: socket.socket) -> None:
        try:
            request, _descriptors = messages.receive(daemon)
            messages.send(daemon, {"id": request["id"], **self._add(request)})
        except (EOFError, OSError):
            self._stop_listening()

    def _add(self, request: dict[str, Any]) -> dict[str, Any]:
        now = time.monotonic()
        for token in [token for token, kept in self._tokens.items() if kept.deadline < now]:
            del self._tokens[token]
        if len(self._tokens) >= MOST_TOKENS:
            return {"error": f"{MOST_TOKENS} streams have been asked for and not begun"}
        self._tokens[request["token"]] = _Token(request["grant"], request["namespace"], now + request["seconds"])
        return {}

    def _stop_listening(self) -> None:
        for sock in (self._daemon, self._listener):
            if sock is not None:
                if sock is self._daemon or not self._is_full:
                    self._poller.unregister(sock)
                sock.close()
        self._daemon = self._listener = None

    # -- sessions

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _address = listener.accept()
        except ConnectionAbortedError:
            return  # it has gone again
        except OSError:  # no descriptor is free: until a session ends, those who come wait in the backlog
            self._poller.unregister(listener)
            self._is_full = True
            return
        if len(self._sessions) >= MOST_SESSIONS:
            connection.setblocking(False)
            _refuse(connection)
            return
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
            child = os.fork()
        except OSError:  # no descriptor or no process is free; the pair, if there is one, goes with its last reference
            connection.setblocking(False)
            _refuse(connection)
            return
        if child == 0:
            ours.close()
            self._run(connection, theirs)
        connection.close()
        theirs.close()
        self._sessions[ours.fileno()] = ours
        self._poller.register(ours, select.POLLIN)

    def _listen_again(self) -> None:
        """A session has ended, and what it had is free."""
        if self._is_full and self._listener is not None:
            self._is_full = False
            self._poller.register(self._listener, select.POLLIN)

    def _run(self, connection: socket.socket, grants: socket.socket) -> None:
        """In the child; never returns."""
        status = 1
        try:
            syscalls.set_process_name("trivet-stream")
            syscalls.close_all_except({2, connection.fileno(), grants.fileno()})
            connection = self._session.wrap(connection, self._context, self._settings["request_seconds"])
            self._session.Session(connection, grants, self._settings).run()
            status = 0
        except OSError:
            pass  # the client has gone, or is none that speaks TLS
        except BaseException:  # noqa: BLE001  the last frame of a process: what is raised here can only be printed
            sys.__excepthook__(*sys.exc_info())  # type: ignore[arg-type]
        finally:
            os._exit(status)

    def _hear_session(self, sock: socket.socket) -> None:
        """It asks for its grant, once, or has ended."""
        try:
            request, _descriptors = messages.receive(sock)
        except (EOFError, OSError):
            self._poller.unregister(sock)
            del self._sessions[sock.fileno()]
            sock.close()
            self._listen_again()
            return
        answer, descriptors = self._use(request["token"], request["kind"])
        try:
            messages.send(sock, answer, descriptors)
        except OSError:
            pass  # it has ended: its socket says so next
        for descriptor in descriptors:
            os.close(descriptor)

    def _use(self, token: str, kind: str) -> tuple[dict[str, Any], list[int]]:
        """What a token allows, once."""
        kept = self._tokens.get(token)
        if kept is None or kept.deadline < time.monotonic() or kept.grant["kind"] != kind:
            return {"refused": "this stream was not asked for, has begun already or has waited too long"}, []
        del self._tokens[token]
        if not kept.namespace:
            return {"grant": kept.grant}, []
        try:
            return {"grant": kept.grant}, [os.open(kept.namespace, os.O_RDONLY | os.O_CLOEXEC)]
        except OSError:
            return {"refused": "the pod has gone"}, []


def _refuse(connection: socket.socket) -> None:
    from runtime_core.streaming import upgrade

    try:
        connection.send(upgrade.refuse("503 Service Unavailable", f"{MOST_SESSIONS} streams are open"))
    except OSError:
        pass  # it does not even read that
    connection.close()
