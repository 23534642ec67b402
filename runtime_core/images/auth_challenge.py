"""How a registry says who may enter: WWW-Authenticate read, credentials turned into headers; no I/O.

Sources: RFC 7235, and distribution's token authentication specification.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from urllib.parse import urlencode

from runtime_core.errors import InvalidArgument

_REALM = re.compile(r"https?://[^/?#@\s]+([/?][^#\s]*)?")
_PARAMETER = re.compile(r'([a-zA-Z_]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """CRI AuthConfig, decoded. repr never shows them."""

    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        if not self.username:
            return ""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def decode_basic(auth: str) -> tuple[str, str]:
    """Username and password of an AuthConfig.auth value."""
    try:
        username, colon, password = base64.b64decode(auth, validate=True).decode().partition(":")
    except (ValueError, UnicodeDecodeError):
        raise InvalidArgument("auth.auth is not base64 of user:password") from None
    if not colon:
        raise InvalidArgument("auth.auth is not base64 of user:password")
    return username, password.rstrip("\0")


@dataclass(frozen=True, slots=True)
class Challenge:
    #: "bearer" or "basic"
    scheme: str
    parameters: dict[str, str]

    @property
    def realm(self) -> str:
        """URL of the token server."""
        realm = self.parameters.get("realm", "")
        if not _REALM.fullmatch(realm):
            raise InvalidArgument(f"the registry's token realm {realm!r} is not a URL")
        return realm

    def token_url(self, scope: str, username: str) -> str:
        """Where a GET is answered with a bearer token."""
        realm = self.realm
        query = {"scope": self.parameters.get("scope") or scope}
        if "service" in self.parameters:
            query["service"] = self.parameters["service"]
        if username:
            query["account"] = username
        return realm + ("&" if "?" in realm else "?") + urlencode(query)

    def token_form(self, scope: str, refresh_token: str) -> dict[str, str]:
        """What a POST to the realm is answered with a bearer token for (RFC 6749, section 6)."""
        return {
            "grant_type": "refresh_token",
            "client_id": "trivet",
            "service": self.parameters.get("service", ""),
            "scope": self.parameters.get("scope") or scope,
            "refresh_token": refresh_token,
        }


def parse_challenge(header: str) -> Challenge | None:
    """The first challenge of a scheme that we can answer."""
    scheme, _, rest = header.strip().partition(" ")
    if scheme.lower() not in ("bearer", "basic"):
        return None
    return Challenge(scheme.lower(), {m[1].lower(): m[2] or m[3] or "" for m in _PARAMETER.finditer(rest)})
