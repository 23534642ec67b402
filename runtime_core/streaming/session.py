"""One client's connection from its HTTP request to its end: a process of its own, in which nothing is shared."""

from __future__ import annotations

import os
import socket
import ssl
import time
from typing import Any

from runtime_core.errors import FailedPrecondition, InvalidArgument
from runtime_core.kernel import namespaces, syscalls
from runtime_core.launcher import messages
from runtime_core.streaming import negotiation, upgrade
from runtime_core.streaming.channels import Closed, Framing, ProtocolError
from runtime_core.streaming.connection import ClientConnection
from runtime_core.streaming.loop import Loop
from runtime_core.streaming.monitor_channel import MonitorChannel
from runtime_core.streaming.port_forward import PortForward
from runtime_core.streaming.remote_command import RemoteCommand

_NOBODY = 65534


class Session:
    """`grants` is the socket on which a token is exchanged for what it allows; `settings`: {"request_seconds",
    "creation_seconds", "idle_seconds"}."""

    def __init__(self, sock: socket.socket, grants: socket.socket, settings: dict[str, Any]) -> None:
        self._loop = Loop()
        self._client = ClientConnection(self._loop, sock)
        self._client.on_data = self._receive
        self._grants, self._settings = grants, settings
        self._reader = upgrade.RequestReader()
        self._framing: Framing | None = None
        self._stream: RemoteCommand | PortForward | None = None
        self._is_finishing = False
        self._loop.call_after(settings["request_seconds"], self._expect_request)

    def run(self) -> None:
        """Until the connection is closed."""
        while not self._client.is_over:
            self._loop.step()
            self._send_replies()
            if self._stream is not None and self._stream.is_over:
                self._finish()

    def _receive(self, data: bytes) -> None:
        if not data:
            self._close()
        elif self._framing is None:
            self._receive_request(data)
        else:
            self._receive_frames(data)

    # -- the request

    def _receive_request(self, data: bytes) -> None:
        try:
            request = self._reader.receive(data)
            if request is not None:
                self._accept(request)
        except InvalidArgument as error:
            self._refuse("400 Bad Request", str(error))
        except FailedPrecondition as error:
            self._refuse("409 Conflict", str(error))

    def _accept(self, request: upgrade.UpgradeRequest) -> None:
        kind, _, token = request.path.removeprefix("/").partition("/")
        messages.send(self._grants, {"kind": kind, "token": token})
        answer, descriptors = messages.receive(self._grants)
        grant = answer.get("grant")
        if grant is None:
            self._refuse("404 Not Found", answer["refused"])
            return
        chosen = negotiation.choose(request, grant)
        if chosen is None:
            supported = negotiation.supported(request, grant)
            self._refuse("403 Forbidden", f"none of {list(request.protocols)} is among {list(supported)}", supported)
            return
        monitor = MonitorChannel(grant["directory"]) if kind != "portforward" else None
        _give_up_rights(descriptors)
        self._framing = chosen.framing
        self._client.send([upgrade.accept(request, chosen.protocol)])
        self._begin(grant, chosen, monitor)
        self._loop.call_after(self._settings["creation_seconds"], self._expect_streams)
        self._loop.call_after(self._settings["idle_seconds"], self._look_for_use)
        self._receive_frames(request.rest)

    def _begin(self, grant: dict[str, Any], chosen: negotiation.Choice, monitor: MonitorChannel | None) -> None:
        parts = (chosen.framing, grant)
        if monitor is None:
            self._stream = PortForward(self._loop, self._client, *parts, is_numbered=chosen.is_numbered)
        else:
            self._stream = RemoteCommand(
                self._loop, self._client, monitor, *parts, chosen.protocol, is_numbered=chosen.is_numbered
            )

    def _refuse(self, status: str, message: str, accepted: tuple[str, ...] = ()) -> None:
        self._client.send([upgrade.refuse(status, message, accepted)])
        self._finish()

    # -- frames

    def _receive_frames(self, data: bytes) -> None:
        assert self._framing is not None and self._stream is not None
        try:
            events = self._framing.receive(data)
        except ProtocolError:
            self._close()
            return
        self._send_replies()
        for event in events:
            if isinstance(event, Closed):
                self._stream.close()
                break
            self._stream.receive(event)

    def _send_replies(self) -> None:
        if self._framing is not None:
            self._client.send([self._framing.take_replies()])

    # -- the end

    def _finish(self) -> None:
        """Everything is said: send it, and close."""
        if not self._is_finishing:
            self._is_finishing = True
            if self._framing is not None:
                self._client.send([self._framing.close()])
            self._client.finish()

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        self._client.close()

    def _expect_request(self) -> None:
        if self._framing is None:
            self._refuse("408 Request Timeout", f"no request within {self._settings['request_seconds']:.0f} s")

    def _expect_streams(self) -> None:
        if self._stream is not None and not self._stream.has_begun:
            self._close()

    def _look_for_use(self) -> None:
        unused = time.monotonic() - self._client.last_used
        if unused >= self._settings["idle_seconds"]:
            self._close()
        else:
            self._loop.call_after(self._settings["idle_seconds"] - unused, self._look_for_use)


def _give_up_rights(descriptors: list[int]) -> None:
    """Enter the pod's network namespace where one came along, and be nobody: from here on bytes from outside are read."""
    if descriptors:
        namespaces.join({"network": descriptors[0]})
        os.close(descriptors[0])
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)


def wrap(sock: socket.socket, context: ssl.SSLContext | None, seconds: float) -> socket.socket:
    """The same connection behind TLS, if there is a context; OSError when the handshake fails or takes longer."""
    if context is None:
        return sock
    sock.settimeout(seconds)
    return context.wrap_socket(sock, server_side=True)
