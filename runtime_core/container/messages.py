"""The whole conversation between a parent and the init it forked, over one SEQPACKET socket.

    init   → parent   CREATED (with the console's descriptor, if any) | FAILED
    parent → init     START    execute the program
    init   → parent   end of file: the program runs | FAILED

An exec'd process says CREATED too, does not wait, and then end of file or FAILED. A process
between parent and init (see parent.py) says PID, with a pidfd, or FAILED, on a socket of its own.
"""

from __future__ import annotations

import array  # noqa: F401  socket.send_fds imports it when called, and in a container that would be its file
import json
import os
import socket

from runtime_core.errors import DeadlineExceeded, from_exception, from_name, name_of_kind

START, CREATED, FAILED, PID = b"start", b"created", b"failed", b"pid"
_MOST_BYTES = 32 * 1024


def socket_pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)


def send(channel: socket.socket, kind: bytes, payload: bytes = b"", descriptors: tuple[int, ...] = ()) -> None:
    socket.send_fds(channel, [kind + b" " + payload], list(descriptors), socket.MSG_NOSIGNAL)


def receive(channel: socket.socket) -> tuple[bytes, bytes, list[int]]:
    """(kind, payload, descriptors); kind b"" is the end of the conversation. A FAILED is raised."""
    try:
        packet, descriptors, _flags, _address = socket.recv_fds(channel, _MOST_BYTES, 4, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return b"", b"", []
    except TimeoutError:
        raise DeadlineExceeded(f"no answer in {channel.gettimeout():.0f} s: a file system may be hanging") from None
    kind, _, payload = packet.partition(b" ")
    if kind == FAILED:
        report = json.loads(payload)
        raise from_name(report["kind"], report["message"])
    return kind, payload, descriptors


def send_failure(channel: socket.socket, error: Exception, action: str) -> None:
    """Report what stopped this side, so that the other raises the same."""
    named = from_exception(error, action)
    text = str(named)[: _MOST_BYTES // 16]  # JSON makes up to twelve bytes of a character
    report = {"kind": name_of_kind(named), "message": text}
    try:
        send(channel, FAILED, json.dumps(report).encode())
    except OSError:
        os._exit(1)  # nobody is left to hear it
