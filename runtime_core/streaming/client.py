"""The daemon's side of streaming: URLs that allow one stream each. Imports nothing of what a stream needs."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from runtime_core.errors import InvalidArgument, ResourceExhausted, Unavailable, from_oserror
from runtime_core.launcher import messages
from runtime_core.launcher.client import Launcher

JOB = "runtime_core.streaming.server:main"
_ANSWER_SECONDS = 30.0
_LONGEST_SECONDS = 7 * 86400
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """The key `streaming` of the configuration."""

    #: where the streaming server listens; the kubelet must reach it
    address: str = "127.0.0.1"
    #: 0 = one that is free
    port: int = 0
    #: paths of PEM files; "" = plain HTTP
    certificate: str = ""
    key: str = ""
    #: between the answer with the URL and its use
    token_seconds: float = 60.0
    #: for the HTTP request, and for the TLS handshake before it
    request_seconds: float = 30.0
    #: for the streams that a client has to open
    creation_seconds: float = 30.0
    #: without a byte in either direction
    idle_seconds: float = 4 * 3600.0

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise InvalidArgument(f"port: {self.port} is not between 0 and 65535")
        if bool(self.certificate) != bool(self.key):
            raise InvalidArgument("certificate and key are given together, or neither")
        for name in ("token_seconds", "request_seconds", "creation_seconds", "idle_seconds"):
            if not 0 < getattr(self, name) <= _LONGEST_SECONDS:
                raise InvalidArgument(f"{name.replace('_', '-')}: {getattr(self, name)} is not between 0 and {_LONGEST_SECONDS}")


class Streams:
    """The listening socket, and the streaming server, which is started when the first stream is asked for."""

    def __init__(self, launcher: Launcher, settings: StreamSettings) -> None:
        """Listens. A port that is taken, an address that is not the node's, a certificate that cannot be used are told here."""
        self._launcher, self._settings = launcher, settings
        if settings.certificate:
            _check_certificate(settings)
        family = socket.AF_INET6 if ":" in settings.address else socket.AF_INET
        try:
            self._listener = socket.create_server((settings.address, settings.port), family=family, backlog=256)
        except OSError as error:
            raise from_oserror(error, f"streaming: listening on {settings.address} port {settings.port}") from error
        self._lock = threading.Lock()
        self._server: socket.socket | None = None
        self._number = 0

    def url(self, kind: str, grant: Mapping[str, Any], namespace: str = "") -> str:
        """Where the stream `kind` ("exec", "attach", "portforward") can be begun once, within a minute.

        `namespace`: path of the network namespace for a port-forward, "" for the node's.
        ResourceExhausted when too many have been asked for and not begun.
        """
        token = os.urandom(24).hex()
        request = {
            "token": token,
            "grant": {**grant, "kind": kind},
            "namespace": namespace,
            "seconds": self._settings.token_seconds,
        }
        with self._lock:
            answer = self._tell(request)
        if "error" in answer:
            raise ResourceExhausted(answer["error"])
        host, port = self._listener.getsockname()[:2]
        host = _ANY.get(host, host)
        scheme = "https" if self._settings.certificate else "http"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/{kind}/{token}"

    def close(self) -> None:
        """Streams that are open go on to their end."""
        self._listener.close()
        if self._server is not None:
            self._server.close()

    def _tell(self, request: dict[str, Any]) -> dict[str, Any]:
        """A streaming server that has died meanwhile is found by that, and another one is started."""
        for server in (self._server, None):
            self._server = server or self._start()
            self._number += 1
            try:
                messages.send(self._server, {"id": self._number, **request})
                return messages.receive(self._server)[0]
            except (EOFError, OSError) as error:
                problem = error
                self._server.close()
                self._server = None
        raise Unavailable(f"the streaming server does not answer: {problem}")

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        with theirs:
            argument = {"paths": sys.path, "settings": asdict(self._settings)}
            self._launcher.fork(JOB, argument, [theirs.fileno(), self._listener.fileno()])
        ours.settimeout(_ANSWER_SECONDS)
        return ours


def _check_certificate(settings: StreamSettings) -> None:
    import ssl  # here: most nodes have none

    from runtime_core.streaming import tls

    try:
        tls.context(asdict(settings))
    except (OSError, ssl.SSLError) as error:
        raise InvalidArgument(f"streaming: certificate {settings.certificate}, key {settings.key}: {error}") from error
