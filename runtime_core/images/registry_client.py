"""The pull side of the OCI distribution specification, over http.client.

One `Registry` per pull and repository. Credentials go to the registry that they are for
and to its token server, never to where a redirect leads (CVE-2020-15157).
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote, urljoin, urlsplit

from runtime_core.errors import (
    DataLoss,
    DeadlineExceeded,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    TrivetError,
    Unavailable,
)
from runtime_core.images.auth_challenge import Credentials, parse_challenge
from runtime_core.images.hosts import Endpoint
from runtime_core.images.reference import Reference

MANIFEST_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_MOST_REDIRECTS = 5
_MOST_MANIFEST = 4 * 1024 * 1024
_MOST_TOKEN = 1024 * 1024
#: seconds without one byte
_STALL = 120.0


class Registry:
    """A repository on a list of endpoints: each request goes to the first that answers it."""

    def __init__(self, reference: Reference, endpoints: list[Endpoint], credentials: Credentials | None) -> None:
        self._reference, self._endpoints = reference, endpoints
        self._credentials = credentials or Credentials()
        self._authorization: dict[str, str] = {}

    def manifest(self, target: str) -> tuple[bytes, str]:
        """(bytes, media type) of a manifest by tag or digest."""
        capability = "pull" if ":" in target else "resolve"
        path = f"/manifests/{quote(target, safe=':')}"
        with self._get(path, capability, {"Accept": ", ".join(MANIFEST_TYPES)}) as response:
            body = _read_bounded(response, _MOST_MANIFEST, f"manifest of {self._reference}")
            return body, response.headers.get("Content-Type", "").partition(";")[0].strip()

    @contextmanager
    def blob(self, digest: str, offset: int = 0) -> Iterator[tuple[http.client.HTTPResponse, int]]:
        """(open response, offset at which its body really begins) of a blob."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        with self._get(f"/blobs/{digest}", "pull", headers) as response:
            yield response, offset if response.status == http.client.PARTIAL_CONTENT else 0

    @contextmanager
    def _get(self, path: str, capability: str, headers: dict[str, str]) -> Iterator[http.client.HTTPResponse]:
        failure: TrivetError = NotFound(f"no endpoint of {self._reference.domain} has the capability {capability}")
        for endpoint in self._endpoints:
            if capability not in endpoint.capabilities:
                continue
            try:
                connection, response = self._ask(endpoint, path, headers)
            except TrivetError as error:
                failure = error
                continue
            try:
                yield response
            except (TimeoutError, http.client.IncompleteRead) as error:
                raise DeadlineExceeded(f"{endpoint.host} stopped sending {self._reference}: {error}") from error
            except OSError as error:
                raise Unavailable(f"{endpoint.host} broke off {self._reference}: {error}") from error
            finally:
                connection.close()
            return
        raise failure

    def _ask(
        self, endpoint: Endpoint, path: str, headers: dict[str, str]
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        url = f"{endpoint.scheme}://{endpoint.host}{endpoint.prefix}/{self._reference.path}{path}"
        if endpoint.namespace:
            url += f"?ns={quote(endpoint.namespace)}"
        headers = {**endpoint.headers, **headers}
        authorization = self._authorization.get(endpoint.host) or self._initial_authorization()
        connection, response = _request(endpoint, url, headers, authorization)
        if response.status == http.client.UNAUTHORIZED:
            connection.close()
            authorization = self._answer(endpoint, response.headers.get_all("WWW-Authenticate") or [])
            connection, response = _request(endpoint, url, headers, authorization)
            self._authorization[endpoint.host] = authorization
        if response.status in (http.client.OK, http.client.PARTIAL_CONTENT):
            return connection, response
        connection.close()
        raise self._refusal(endpoint, response.status, path)

    def _initial_authorization(self) -> str:
        if self._credentials.registry_token:
            return f"Bearer {self._credentials.registry_token}"
        return ""

    def _answer(self, endpoint: Endpoint, challenges: list[str]) -> str:
        for challenge in filter(None, map(parse_challenge, challenges)):
            if challenge.scheme == "basic" and self._credentials.basic:
                return self._credentials.basic
            if challenge.scheme == "bearer":
                scope = f"repository:{self._reference.path}:pull"
                url = challenge.token_url(scope, self._credentials.username)
                return f"Bearer {self._token(endpoint, url)}"
        raise PermissionDenied(f"{endpoint.host} wants credentials for {self._reference}, and there are none")

    def _token(self, endpoint: Endpoint, url: str) -> str:
        connection, response = _request(endpoint, url, {}, self._credentials.basic)
        try:
            if response.status != http.client.OK:
                raise PermissionDenied(f"the token server of {endpoint.host} refused {self._reference}: HTTP {response.status}")
            document = json.loads(_read_bounded(response, _MOST_TOKEN, "token"))
        except json.JSONDecodeError as error:
            raise DataLoss(f"the token server of {endpoint.host} sent no JSON") from error
        finally:
            connection.close()
        token = document.get("token") or document.get("access_token")
        if not isinstance(token, str) or not token:
            raise PermissionDenied(f"the token server of {endpoint.host} sent no token")
        return token

    def _refusal(self, endpoint: Endpoint, status: int, path: str) -> TrivetError:
        what = f"{self._reference} ({path.strip('/')}) on {endpoint.host}: HTTP {status}"
        if status == http.client.NOT_FOUND:
            return NotFound(what)
        if status in (http.client.UNAUTHORIZED, http.client.FORBIDDEN):
            return PermissionDenied(what)
        if status == http.client.TOO_MANY_REQUESTS:
            return ResourceExhausted(what)
        return Unavailable(what)


def _request(
    endpoint: Endpoint, url: str, headers: dict[str, str], authorization: str
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """GET with redirects followed; `authorization` is for the first host alone."""
    first = urlsplit(url).netloc
    for _redirect in range(_MOST_REDIRECTS):
        parts = urlsplit(url)
        sent = dict(headers)
        if authorization and parts.netloc == first:
            sent["Authorization"] = authorization
        connection = _connect(endpoint, parts.scheme, parts.netloc)
        try:
            connection.request("GET", parts.path + (f"?{parts.query}" if parts.query else ""), headers=sent)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise Unavailable(f"registry {parts.netloc} does not answer: {error}") from error
        if response.status not in (301, 302, 303, 307, 308):
            return connection, response
        connection.close()
        url = urljoin(url, response.headers.get("Location", ""))
    raise Unavailable(f"registry {endpoint.host} redirects more than {_MOST_REDIRECTS} times")


def _connect(endpoint: Endpoint, scheme: str, host: str) -> http.client.HTTPConnection:
    if scheme == "https":
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, timeout=endpoint.dial_timeout, context=endpoint.tls()
        )
    elif scheme == "http":
        connection = http.client.HTTPConnection(host, timeout=endpoint.dial_timeout)
    else:
        raise Unavailable(f"registry {endpoint.host} redirects to the scheme {scheme!r}")
    try:
        connection.connect()
    except (OSError, ValueError) as error:
        raise Unavailable(f"registry {host} cannot be reached: {error}") from error
    connection.sock.settimeout(_STALL)
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _read_bounded(response: http.client.HTTPResponse, limit: int, what: str) -> bytes:
    body = response.read(limit + 1)
    if len(body) > limit:
        raise ResourceExhausted(f"{what} is larger than {limit} bytes")
    return body
