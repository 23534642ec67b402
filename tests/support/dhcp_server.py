"""A DHCP server for one link, in a thread; it reads and writes messages by itself, not by what it tests."""

from __future__ import annotations

import queue
import select
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

DISCOVER, OFFER, REQUEST, ACK, NAK, RELEASE = 1, 2, 3, 5, 6, 7
_BIND_TO_DEVICE = 25
_COOKIE = b"\x63\x82\x53\x63"


class Asked:
    """A message of a client."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.transaction, self.seconds, self.flags = struct.unpack_from("!IHH", data, 4)
        self.client_address, self.mac = data[12:16], data[28:34]
        assert data[:3] == b"\x01\x01\x06"
        assert data[236:240] == _COOKIE
        self.options: dict[int, bytes] = {}
        position = 240
        while data[position] != 255:
            length = data[position + 1]
            self.options[data[position]] = data[position + 2 : position + 2 + length]
            position += 2 + length

    @property
    def kind(self) -> int:
        return self.options[53][0]


class DhcpServer:
    """Gives .10, .11 and so on of its own network by client identifier. `asked` has what came; `lease` and `extra` go into
    answers."""

    def __init__(self, interface: str, address: str = "10.9.0.1") -> None:
        self.address = socket.inet_aton(address)
        self.asked: queue.Queue[Asked] = queue.Queue()
        self.given: dict[bytes, bytes] = {}
        self.lease = 3600
        self.extra: dict[int, bytes] = {1: b"\xff\xff\xff\x00", 3: self.address}
        #: what is sent for a message; None for nothing. Each test may put its own in this place.
        self.answers: Callable[[Asked], list[bytes]] = self.usual
        self._stop, self._stopper = socket.socketpair()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, _BIND_TO_DEVICE, interface.encode() + b"\0")
        self._socket.bind(("", 67))
        self._thread = threading.Thread(target=self._run, name="dhcp-server", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stopper.close()
        self._thread.join()
        self._stop.close()
        self._socket.close()

    def next(self, kind: int, seconds: float = 20) -> Asked:
        """The next message of a kind; what comes before it is dropped."""
        while True:
            asked = self.asked.get(timeout=seconds)
            if asked.kind == kind:
                return asked

    def usual(self, asked: Asked) -> list[bytes]:
        if asked.kind == RELEASE:
            self.given.pop(asked.options[61], None)
            return []
        address = self.given.setdefault(asked.options[61], self.address[:3] + bytes((10 + len(self.given),)))
        return [self.reply(asked, OFFER if asked.kind == DISCOVER else ACK, address)]

    def reply(self, asked: Asked, kind: int, address: bytes = bytes(4), **change: Any) -> bytes:
        """A message as it should be, but for what `change` says."""
        options = {
            53: bytes((kind,)),
            54: self.address,
            51: struct.pack("!I", self.lease),
            **self.extra,
            **change.pop("options", {}),
        }
        transaction, mac = change.pop("transaction", asked.transaction), change.pop("mac", asked.mac)
        head = struct.pack("!BBBBIHH", change.pop("op", 2), 1, 6, 0, transaction, 0, 0)
        head += bytes(4) + address + self.address + bytes(4) + mac.ljust(16, b"\0") + bytes(192)
        body = b"".join(bytes((code, len(value))) + value for code, value in options.items() if value is not None)
        return head + change.pop("cookie", _COOKIE) + body + change.pop("end", b"\xff")

    def _run(self) -> None:
        while True:
            ready, _, _ = select.select([self._socket, self._stop], [], [])
            if self._stop in ready:
                return
            asked = Asked(self._socket.recv(2048))
            for answer in self.answers(asked):
                # A client that has no address yet cannot be found by it.
                to = socket.inet_ntoa(asked.client_address) if any(asked.client_address) else "255.255.255.255"
                self._socket.sendto(answer, (to, 68))
            self.asked.put(asked)
