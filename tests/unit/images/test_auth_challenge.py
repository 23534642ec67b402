"""Challenges read, credentials decoded and never shown."""

from __future__ import annotations

import base64

import pytest

from runtime_core.errors import InvalidArgument
from runtime_core.images.auth_challenge import Challenge, Credentials, decode_basic, parse_challenge


@pytest.mark.parametrize(
    ("header", "challenge"),
    [
        ('Basic realm="x"', Challenge("basic", {"realm": "x"})),
        ('BEARER REALM="https://a/t",service=s', Challenge("bearer", {"realm": "https://a/t", "service": "s"})),
        (
            'Bearer realm="https://a/t", scope="repository:a/b:pull,push", error="invalid_token"',
            Challenge("bearer", {"realm": "https://a/t", "scope": "repository:a/b:pull,push", "error": "invalid_token"}),
        ),
        ("Bearer", Challenge("bearer", {})),
        ("Digest realm=x", None),
        ("", None),
    ],
)
def test_a_challenge_is_read(header: str, challenge: Challenge | None) -> None:
    """Names in any case, values quoted or not; what we cannot answer is none."""
    assert parse_challenge(header) == challenge


@pytest.mark.parametrize(
    ("realm", "url"),
    [
        ("https://a.example/token", "https://a.example/token?scope=repository%3Ax%3Apull&service=s&account=jane"),
        ("http://a/t?x=1", "http://a/t?x=1&scope=repository%3Ax%3Apull&service=s&account=jane"),
    ],
)
def test_a_token_is_to_be_had_at_the_realm(realm: str, url: str) -> None:
    """With scope, service and account."""
    assert Challenge("bearer", {"realm": realm, "service": "s"}).token_url("repository:x:pull", "jane") == url


@pytest.mark.parametrize(
    "realm", ["", "x", "file:///etc/passwd", "https://", "https://user:pass@a/", "https://a/ b", "https://a/#b"]
)
def test_a_realm_that_is_no_url_is_refused(realm: str) -> None:
    """Before anybody is asked."""
    with pytest.raises(InvalidArgument, match="token realm"):
        Challenge("bearer", {"realm": realm}).token_url("s", "")


@pytest.mark.parametrize(
    ("plain", "pair"),
    [("jane:secret", ("jane", "secret")), ("jane:a:b", ("jane", "a:b")), (":", ("", "")), ("j:s\0\0", ("j", "s"))],
)
def test_auth_is_user_and_password(plain: str, pair: tuple[str, str]) -> None:
    """AuthConfig.auth, in base64; a colon may be in the password, padding behind it is none of it."""
    assert decode_basic(base64.b64encode(plain.encode()).decode()) == pair


@pytest.mark.parametrize("auth", ["?", "amFuZQ==", "/w==", "a"])
def test_auth_that_is_something_else_is_refused(auth: str) -> None:
    """By its field, without its value."""
    with pytest.raises(InvalidArgument, match=r"^auth\.auth is not base64 of user:password$"):
        decode_basic(auth)


def test_credentials_are_not_shown() -> None:
    """Neither in a log nor in a trace."""
    shown = repr(Credentials(username="jane", password="secret", identity_token="token1", registry_token="token2"))
    assert not any(secret in shown for secret in ("jane", "secret", "token1", "token2"))
