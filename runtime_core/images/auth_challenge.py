"""Authentication of registries: parses WWW-Authenticate, and makes headers of credentials; no I/O.

Sources: RFC 9110 section 11, and distribution's token authentication specification.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlencode

from runtime_core.errors import InvalidArgument

#: the preferred one first
_SCHEMES = ("bearer", "basic")
_REALM = re.compile(r"https?://[^/?#@\s]+([/?][^#\s]*)?")
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SEPARATORS = re.compile(r"[\s,]*")
#: a scheme, and perhaps the one value that is no parameter, such as that of Negotiate
_SCHEME = re.compile(rf"({_TOKEN})(?:[ \t]+[A-Za-z0-9._~+/-]+=*[ \t]*(?=,|$))?")
#: not all registries quote their URLs
_PARAMETER = re.compile(rf'({_TOKEN})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"=]+(?![^\s,])))')
_ESCAPED = re.compile(r"\\(.)")


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
    #: in lower case
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


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """What the WWW-Authenticate lines of an answer offer that we can answer: each line is a list, and each
    challenge of it has parameters that commas part as well. What cannot be read ends its line."""
    found = [challenge for header in headers for challenge in _line(header)]
    # A registry that has tokens may take a password for them alone.
    return sorted((challenge for challenge in found if challenge.scheme in _SCHEMES), key=lambda c: _SCHEMES.index(c.scheme))


def _line(header: str) -> Iterator[Challenge]:
    position = _after_separators(header, 0)
    while scheme := _SCHEME.match(header, position):
        position = _after_separators(header, scheme.end())
        parameters: dict[str, str] = {}
        while parameter := _PARAMETER.match(header, position):
            quoted, plain = parameter[2], parameter[3]
            parameters.setdefault(parameter[1].lower(), plain if quoted is None else _ESCAPED.sub(r"\1", quoted))
            position = _after_separators(header, parameter.end())
        yield Challenge(scheme[1].lower(), parameters)


def _after_separators(header: str, position: int) -> int:
    match = _SEPARATORS.match(header, position)
    return match.end() if match else position
