"""One request over http.client: redirects followed, secrets for the first host alone, its time bounded.

A redirect may lead to another host, which then gets neither credentials nor configured
headers nor the client's certificate (CVE-2020-15157), and never from https to http.
"""

from __future__ import annotations

import dataclasses
import functools
import http.client
import socket
import ssl
from collections.abc import Mapping
from types import TracebackType
from urllib.parse import SplitResult, urlencode, urljoin, urlsplit

from runtime_core.errors import DeadlineExceeded, ResourceExhausted, Unavailable
from runtime_core.images.hosts import Endpoint
from runtime_core.images.transfer_rate import PacedResponse, TransferLimits, TransferRate

_MOST_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)


class Response:
    """An open answer, closed by its `with` block."""

    def __init__(
        self,
        connection: http.client.HTTPConnection,
        response: http.client.HTTPResponse,
        rate: TransferRate,
        host: str,
        *,
        is_redirected: bool,
    ) -> None:
        self._connection, self._response, self._rate, self._received = connection, response, rate, 0
        self.status, self.headers, self.host = response.status, response.headers, host
        #: another host than the one that was asked has answered
        self.is_redirected = is_redirected
        #: bytes of the body, None when the server does not say
        self.length = response.length

    def read(self, size: int) -> bytes:
        """What is there next, at most `size` bytes, nothing at the end.

        DeadlineExceeded when the host falls silent or is too slow, Unavailable when it breaks off.
        """
        if self._received == self.length:
            return b""
        try:
            data = self._response.read1(size)
        except TimeoutError as error:
            raise self._rate.timeout_error("has sent nothing") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unavailable(f"{self.host} broke off: {error!r}") from error
        self._received += len(data)
        if not data and self.length is not None:
            raise Unavailable(f"{self.host} broke off after {self._received} of {self.length} bytes")
        return data

    def read_whole(self, limit: int, what: str) -> bytes:
        """The body; ResourceExhausted when it is larger than `limit`."""
        body = b""
        while data := self.read(limit):
            body += data
            if len(body) > limit:
                raise ResourceExhausted(f"{what} from {self.host} is larger than {limit} bytes")
        return body

    def begin_transfer(self) -> None:
        """What comes now may take as long as it must, at the least rate."""
        self._rate.transfer()

    def close(self) -> None:
        """Close the body and the connection; idempotent."""
        self._response.close()  # it alone has the socket of a body without length
        self._connection.close()

    def __enter__(self) -> Response:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Http:
    """Made for one pull; keeps the TLS contexts, which are dear to make."""

    def __init__(self, limits: TransferLimits) -> None:
        self._limits = limits
        self._contexts: dict[tuple[str, bool], ssl.SSLContext] = {}

    def get(self, endpoint: Endpoint, url: str, headers: Mapping[str, str], secrets: Mapping[str, str]) -> Response:
        """`secrets` are the headers that go to the host of `url` and no further.

        Raises Unavailable and DeadlineExceeded; any status is an answer.
        """
        first = parts = urlsplit(url)
        for _redirect in range(_MOST_REDIRECTS):
            is_redirected = parts[:2] != first[:2]
            connection, rate = self._connect(endpoint, parts, is_redirected=is_redirected)
            response = _ask(connection, rate, parts, headers if is_redirected else {**headers, **secrets})
            if response.status not in _REDIRECTS:
                return Response(connection, response, rate, parts.netloc, is_redirected=is_redirected)
            response.close()
            connection.close()
            parts = _follow(first, parts, response.headers.get("Location", ""))
        raise Unavailable(f"{endpoint.host} redirects more than {_MOST_REDIRECTS} times")

    def post(self, endpoint: Endpoint, url: str, form: Mapping[str, str]) -> Response:
        """A form, which may hold secrets: a redirect is an answer, and not followed."""
        parts = urlsplit(url)
        connection, rate = self._connect(endpoint, parts, is_redirected=False)
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        response = _ask(connection, rate, parts, headers, urlencode(form).encode())
        return Response(connection, response, rate, parts.netloc, is_redirected=False)

    def _connect(
        self, endpoint: Endpoint, parts: SplitResult, *, is_redirected: bool
    ) -> tuple[http.client.HTTPConnection, TransferRate]:
        try:
            _port = parts.port  # ValueError for one that is no ASCII number: http.client takes any digits
            if parts.scheme == "https":
                context = self._context(endpoint, is_redirected=is_redirected)
                connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                    parts.netloc, timeout=endpoint.dial_timeout, context=context
                )
            else:
                connection = http.client.HTTPConnection(parts.netloc, timeout=endpoint.dial_timeout)
            connection.connect()
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise Unavailable(f"{parts.netloc} cannot be reached: {error}") from error
        connection.sock.settimeout(self._limits.silence)
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        rate = TransferRate(parts.netloc, self._limits)
        connection.response_class = functools.partial(PacedResponse, rate=rate)  # type: ignore[assignment]
        return connection, rate

    def _context(self, endpoint: Endpoint, *, is_redirected: bool) -> ssl.SSLContext:
        key = endpoint.host, is_redirected
        if key not in self._contexts:
            self._contexts[key] = (dataclasses.replace(endpoint, client=()) if is_redirected else endpoint).tls()
        return self._contexts[key]


def _follow(first: SplitResult, present: SplitResult, location: str) -> SplitResult:
    try:
        parts = urlsplit(urljoin(present.geturl(), location))
    except ValueError as error:
        raise Unavailable(f"{first.netloc} redirects to {location!r}: {error}") from error
    if parts.scheme not in ("http", "https") or (first.scheme, parts.scheme) == ("https", "http"):
        raise Unavailable(f"{first.netloc} redirects from {first.scheme} to {parts.scheme}://{parts.netloc}, which is refused")
    return parts


def _ask(
    connection: http.client.HTTPConnection,
    rate: TransferRate,
    parts: SplitResult,
    headers: Mapping[str, str],
    body: bytes | None = None,
) -> http.client.HTTPResponse:
    try:
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request("GET" if body is None else "POST", path, body, dict(headers))
        return connection.getresponse()
    except TimeoutError as error:
        connection.close()
        raise rate.timeout_error("has not answered") from error
    except DeadlineExceeded:
        connection.close()
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        connection.close()
        raise Unavailable(f"{parts.netloc} does not answer: {error!r}") from error
