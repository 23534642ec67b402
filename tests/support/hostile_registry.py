"""A registry that lies, stalls and breaks off where a test tells it to, and remembers what it was asked."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from trivet.demo.registry import Registry, _Handler

Act = Callable[["Handler"], None]


@dataclass
class _Rule:
    part: str
    act: Act
    #: how often it still applies, None for ever
    times: int | None


@dataclass(frozen=True)
class Asked:
    path: str
    headers: dict[str, str] = field(hash=False)


class HostileRegistry(Registry):
    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Asked] = []
        self.closing = threading.Event()
        self._rules: list[_Rule] = []
        self._server.RequestHandlerClass = type("Handler", (Handler,), {"registry": self})

    def misbehave(self, part: str, act: Act, times: int | None = None) -> None:
        """Do `act` for a request whose path has `part` in it, `times` times; later rules win while they last."""
        self._rules.insert(0, _Rule(part, act, times))

    def behave(self) -> None:
        self._rules.clear()
        self.asked.clear()

    def clear(self) -> None:
        """As new."""
        self.behave()
        self._blobs.clear()
        self._manifests.clear()

    def count(self, part: str) -> int:
        return sum(part in asked.path for asked in self.asked)

    def rule(self, path: str) -> Act | None:
        for rule in self._rules:
            if rule.part in path and rule.times != 0:
                rule.times = rule.times and rule.times - 1
                return rule.act
        return None

    def close(self) -> None:
        self.closing.set()
        super().close()


class Handler(_Handler):
    registry: HostileRegistry  # type: ignore[assignment]

    def do_POST(self) -> None:
        self.form = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.do_GET()

    def do_GET(self) -> None:
        self.registry.asked.append(Asked(self.path, dict(self.headers)))
        act = self.registry.rule(self.path)
        try:
            if act is None:
                super().do_GET()
            else:
                act(self)
        except OSError:
            self.close_connection = True  # who asked has gone

    do_HEAD = do_GET  # noqa: N815

    def rest(self) -> None:
        """What a registry does that is not hostile."""
        super().do_GET()

    def body(self) -> tuple[str, bytes]:
        found = self.registry.answer(self.path.partition("?")[0])
        assert found is not None
        return found

    def begin(self, status: int, **headers: Any) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()


def hang(after: int) -> Act:
    """Headers, `after` bytes, and then nothing."""

    def act(handler: Handler) -> None:
        kind, body = handler.body()
        handler.begin(200, Content_Type=kind, Content_Length=len(body))
        handler.wfile.write(body[:after])
        handler.registry.closing.wait(60)
        handler.close_connection = True

    return act


def hang_at_once(handler: Handler) -> None:
    """Not even headers."""
    handler.registry.closing.wait(60)
    handler.close_connection = True


def break_off(after: int) -> Act:
    """`after` of the bytes that the headers promise."""

    def act(handler: Handler) -> None:
        kind, body = handler.body()
        handler.begin(200, Content_Type=kind, Content_Length=len(body))
        handler.wfile.write(body[:after])
        handler.close_connection = True

    return act


def say(body: bytes, kind: str = "application/octet-stream", **headers: Any) -> Act:
    """Something else than what was asked for."""

    def act(handler: Handler) -> None:
        handler.begin(200, Content_Type=kind, Content_Length=len(body), **headers)
        handler.wfile.write(body)

    return act


def endless(handler: Handler) -> None:
    """No length, no end."""
    handler.begin(200, Content_Type="application/vnd.oci.image.manifest.v1+json", Connection="close")
    while not handler.registry.closing.is_set():
        handler.wfile.write(bytes(65536))


def drip(part: bytes, pause: float, *, head: bool = False, size: int = 1 << 20) -> Act:
    """`part` again and again, with a pause after each, of a body of `size` bytes: never silent, never at its end.
    With `head` it is in the headers."""

    def act(handler: Handler) -> None:
        if head:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        else:
            handler.begin(200, Content_Type="application/json", Content_Length=size)
        while not handler.registry.closing.wait(pause):
            handler.wfile.write(part)

    return act


def endless_chunks(handler: Handler) -> None:
    """The body that was asked for, and more and more behind it, in chunks."""
    kind, body = handler.body()
    handler.begin(200, Content_Type=kind, Transfer_Encoding="chunked")
    while not handler.registry.closing.is_set():
        handler.wfile.write(b"%x\r\n%b\r\n" % (len(body), body))


def refuse(status: int, **headers: Any) -> Act:
    def act(handler: Handler) -> None:
        handler.begin(status, Content_Length=0, **headers)

    return act


def redirect(url: str) -> Act:
    return refuse(307, Location=url)
