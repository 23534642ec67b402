"""The pull side of the OCI distribution specification: a repository on a list of endpoints.

One `Registry` per pull. Credentials go to the registry that they are for and to its token
server, never to where a redirect leads (runtime_core.images.http_request).
"""

from __future__ import annotations

import dataclasses
import hashlib
import http.client
import json
import time
from urllib.parse import quote, urlsplit

from runtime_core.errors import DataLoss, InvalidArgument, NotFound, OutOfRange, PermissionDenied, TrivetError, Unavailable
from runtime_core.images.auth_challenge import Challenge, Credentials, parse_challenges
from runtime_core.images.hosts import Endpoint
from runtime_core.images.http_request import Http, Response
from runtime_core.images.reference import Reference
from runtime_core.images.transfer_rate import TransferLimits
from runtime_core.kernel.decimal_number import parse_decimal

MANIFEST_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_MOST_MANIFEST = 4 * 1024 * 1024
_MOST_TOKEN = 1024 * 1024
#: what a registry says that is overloaded or in trouble
_PASSING = (429, 500, 502, 503, 504)
#: seconds before all endpoints are asked again, unless one says how long (RFC 9110, Retry-After)
_PAUSES = (0.2, 1.0)
#: who wants us to wait longer is not waited for: the kubelet will come again
_LONGEST_PAUSE = 30.0


class Registry:
    """Each request goes to the first endpoint that answers it."""

    def __init__(
        self, reference: Reference, endpoints: list[Endpoint], credentials: Credentials | None, limits: TransferLimits
    ) -> None:
        self._reference, self._endpoints = reference, endpoints
        self._credentials = credentials or Credentials()
        self._authorization: dict[str, str] = {}
        self._http = Http(limits)

    def manifest(self, target: str) -> tuple[bytes, str]:
        """(bytes, media type) of a manifest by tag or digest."""
        capability = "pull" if ":" in target else "resolve"
        path = f"/manifests/{quote(target, safe=':')}"
        with self._get(path, capability, {"Accept": ", ".join(MANIFEST_TYPES)}) as response:
            body = response.read_whole(_MOST_MANIFEST, "the manifest")
            stated = response.headers.get("Docker-Content-Digest", "")
            if stated.startswith("sha256:") and stated != f"sha256:{hashlib.sha256(body).hexdigest()}":
                raise DataLoss(f"{response.host} says that the manifest has the digest {stated}, which it has not")
            return body, response.headers.get("Content-Type", "").partition(";")[0].strip()

    def blob(self, digest: str, offset: int = 0) -> tuple[Response, int]:
        """(open response, offset at which its body really begins) of a blob, which must come at the least rate."""
        try:
            response = self._get(f"/blobs/{digest}", "pull", {"Range": f"bytes={offset}-"} if offset else {})
        except OutOfRange:  # what is here is not its beginning
            response = self._get(f"/blobs/{digest}", "pull", {})
        response.begin_transfer()
        if response.status != http.client.PARTIAL_CONTENT:
            return response, 0
        if not response.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
            response.close()
            raise DataLoss(f"{response.host} answers with another part of blob {digest} than it was asked for")
        return response, offset

    def _get(self, path: str, capability: str, headers: dict[str, str]) -> Response:
        able = [endpoint for endpoint in self._endpoints if capability in endpoint.capabilities]
        failure: TrivetError = NotFound(f"no endpoint of {self._reference.domain} has the capability {capability}")
        for pause in (*_PAUSES, _LONGEST_PAUSE + 1):
            wanted: float | None = None
            for endpoint in able:
                try:
                    response = self._ask(endpoint, path, headers)
                except TrivetError as error:
                    failure, wanted = error, None
                    continue
                if response.status in (http.client.OK, http.client.PARTIAL_CONTENT):
                    return response
                response.close()
                failure, wanted = _refusal(response, path), _wanted_pause(response)
            if wanted is None or max(wanted, pause) > _LONGEST_PAUSE:
                break
            time.sleep(max(wanted, pause))
        raise failure

    def _ask(self, endpoint: Endpoint, path: str, headers: dict[str, str]) -> Response:
        url = f"{endpoint.scheme}://{endpoint.host}{endpoint.prefix}/{self._reference.path}{path}"
        if endpoint.namespace:
            url += f"?ns={quote(endpoint.namespace)}"
        authorization = self._authorization.get(endpoint.host) or self._initial_authorization()
        response = self._http.get(endpoint, url, headers, _secrets(endpoint, authorization))
        if response.status == http.client.UNAUTHORIZED and not response.is_redirected:
            response.close()
            authorization = self._authenticate(endpoint, response.headers.get_all("WWW-Authenticate") or [])
            response = self._http.get(endpoint, url, headers, _secrets(endpoint, authorization))
            self._authorization[endpoint.host] = authorization
        return response

    def _initial_authorization(self) -> str:
        if self._credentials.registry_token:
            return f"Bearer {self._credentials.registry_token}"
        return ""

    def _authenticate(self, endpoint: Endpoint, challenges: list[str]) -> str:
        for challenge in parse_challenges(challenges):
            if challenge.scheme == "basic" and self._credentials.basic:
                return self._credentials.basic
            if challenge.scheme == "bearer":
                return f"Bearer {self._token(endpoint, challenge)}"
        raise PermissionDenied(f"{endpoint.host} wants credentials, and there are none that it takes")

    def _token(self, endpoint: Endpoint, challenge: Challenge) -> str:
        server = urlsplit(challenge.realm)
        if (endpoint.scheme, server.scheme) == ("https", "http"):
            raise InvalidArgument(f"{endpoint.host} names a token server without TLS, {server.netloc}")
        asked = endpoint if server.netloc == endpoint.host else dataclasses.replace(endpoint, host=server.netloc, client=())
        with self._ask_for_token(asked, challenge) as response:
            if response.status in _PASSING:
                raise Unavailable(f"the token server {server.netloc} answers HTTP {response.status}")
            if response.status != http.client.OK:
                raise PermissionDenied(f"the token server {server.netloc} refuses: HTTP {response.status}")
            body = response.read_whole(_MOST_TOKEN, "the token")
        try:
            document = json.loads(body)
            token = document.get("token") or document.get("access_token")
        except (ValueError, RecursionError, AttributeError) as error:
            raise DataLoss(f"the token server {server.netloc} sent no JSON object") from error
        if not isinstance(token, str) or not token.isprintable() or not token:
            raise PermissionDenied(f"the token server {server.netloc} sent no token")
        return token

    def _ask_for_token(self, server: Endpoint, challenge: Challenge) -> Response:
        scope, credentials = f"repository:{self._reference.path}:pull", self._credentials
        if credentials.identity_token:
            return self._http.post(server, challenge.realm, challenge.token_form(scope, credentials.identity_token))
        secrets = {"Authorization": credentials.basic} if credentials.basic else {}
        return self._http.get(server, challenge.token_url(scope, credentials.username), {}, secrets)


def _secrets(endpoint: Endpoint, authorization: str) -> dict[str, str]:
    return {**endpoint.headers, **({"Authorization": authorization} if authorization else {})}


def _refusal(response: Response, path: str) -> TrivetError:
    what = f"{path.strip('/')} on {response.host}: HTTP {response.status}"
    if response.status == http.client.NOT_FOUND:
        return NotFound(what)
    if response.status in (http.client.UNAUTHORIZED, http.client.FORBIDDEN):
        return PermissionDenied(what)
    if response.status == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
        return OutOfRange(what)
    return Unavailable(what)


def _wanted_pause(response: Response) -> float | None:
    """Seconds after which to ask again, None when that is no use."""
    if response.status not in _PASSING:
        return None
    return float(parse_decimal(response.headers.get("Retry-After", "")) or 0)
