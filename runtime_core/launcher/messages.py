"""JSON objects with file descriptors over a SOCK_SEQPACKET socket.

Launcher and monitors speak this. A message that would not fit in one packet travels
in a memfd, whose descriptor then goes first. Cold: the launcher imports it.
"""

from __future__ import annotations

import json
import os
import socket
import struct

from runtime_core.errors import ResourceExhausted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

#: Above this a message travels in a memfd; a packet must fit the default socket buffer (about 208 KiB).
SPILL = 64 * 1024
#: No message is larger; a larger one is a fault of the sender.
LIMIT = 32 * 1024 * 1024
_MOST_DESCRIPTORS = 16
_SPILLED = b"\0"
_INT = struct.calcsize("i")
_ANCILLARY_BYTES = socket.CMSG_SPACE(_MOST_DESCRIPTORS * _INT)
#: Plain numbers: the enumerations of `socket` run Python code on every "|", on pages that forks then copy.
_CMSG_CLOEXEC, _NOSIGNAL = int(socket.MSG_CMSG_CLOEXEC), int(socket.MSG_NOSIGNAL)
_SOL_SOCKET, _SCM_RIGHTS = int(socket.SOL_SOCKET), int(socket.SCM_RIGHTS)


def send(sock: socket.socket, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
    """Send one message; raises OSError, ResourceExhausted when it is beyond LIMIT."""
    payload = json.dumps(message, separators=(",", ":")).encode()
    if len(payload) <= SPILL:
        _send_packet(sock, payload, descriptors)
        return
    if len(payload) > LIMIT:
        raise ResourceExhausted(f"a message of {len(payload)} bytes is over the limit of {LIMIT}")
    spill = os.memfd_create("trivet-message", os.MFD_CLOEXEC)
    try:
        with open(spill, "wb", closefd=False) as file:
            file.write(payload)
        _send_packet(sock, _SPILLED, [spill, *descriptors])
    finally:
        os.close(spill)


def _send_packet(sock: socket.socket, payload: bytes, descriptors: Sequence[int]) -> None:
    rights = struct.pack(f"{len(descriptors)}i", *descriptors)
    sock.sendmsg([payload], [(_SOL_SOCKET, _SCM_RIGHTS, rights)] if descriptors else [], _NOSIGNAL)


def receive(sock: socket.socket, flags: int = 0) -> tuple[dict[str, Any], list[int]]:
    """The next message and its descriptors (close-on-exec).

    EOFError when the peer has gone, ValueError for what is no message; then its descriptors are closed.
    """
    payload, ancillary, _flags, _address = sock.recvmsg(SPILL + 1, _ANCILLARY_BYTES, flags | _CMSG_CLOEXEC)
    descriptors = [
        fd for _level, _kind, data in ancillary for (fd,) in struct.iter_unpack("i", data[: len(data) - len(data) % _INT])
    ]
    try:
        return _message(payload, descriptors), descriptors
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise


def _message(payload: bytes, descriptors: list[int]) -> dict[str, Any]:
    if not payload:
        raise EOFError("the peer has closed the connection")
    if payload == _SPILLED and descriptors:
        payload = _read_spill(descriptors.pop(0))
    message = json.loads(payload)
    if not isinstance(message, dict):
        raise ValueError("a message is a JSON object")
    return message


def _read_spill(descriptor: int) -> bytes:
    try:
        size = os.fstat(descriptor).st_size
        if size > LIMIT:
            raise ValueError(f"message of {size} bytes is over the limit of {LIMIT}")
        with open(descriptor, "rb", closefd=False) as file:
            file.seek(0)
            return file.read()
    finally:
        os.close(descriptor)
