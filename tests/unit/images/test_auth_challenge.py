"""Challenges read, credentials decoded and never shown."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime_core.errors import InvalidArgument
from runtime_core.images.auth_challenge import Challenge, Credentials, decode_basic, parse_challenges


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
        ('Bearer realm = "https://a/t" , service = s', Challenge("bearer", {"realm": "https://a/t", "service": "s"})),
        (r'Basic realm="a \"quoted\" \\ name, with a comma"', Challenge("basic", {"realm": 'a "quoted" \\ name, with a comma'})),
        ('Basic realm="x", realm="y"', Challenge("basic", {"realm": "x"})),
        ('Basic realm=""', Challenge("basic", {"realm": ""})),
        ('Bearer realm="https://a/t?x=1&y=2",service="a=b, Basic realm=c"',
         Challenge("bearer", {"realm": "https://a/t?x=1&y=2", "service": "a=b, Basic realm=c"})),
        ('\tBasic  realm="x"  ', Challenge("basic", {"realm": "x"})),
    ],
)  # fmt: skip
def test_a_challenge_is_read(header: str, challenge: Challenge) -> None:
    """Names in any case, values quoted or not, with escapes and commas in them."""
    assert parse_challenges([header]) == [challenge]


_BEARER, _BASIC = Challenge("bearer", {"realm": "http://a/t", "service": "s"}), Challenge("basic", {"realm": "reg"})


@pytest.mark.parametrize(
    "headers",
    [
        ['Bearer realm="http://a/t",service="s", Basic realm="reg"'],
        ['Basic realm="reg", Bearer realm="http://a/t", service="s"'],
        ['Basic realm="reg"', 'Bearer realm="http://a/t",service="s"'],
        ['Bearer realm="http://a/t",service="s"', 'Basic realm="reg"'],
        ['Negotiate, Bearer realm="http://a/t",service="s",Basic realm="reg"'],
        ['Negotiate YWJjZA==, Basic realm="reg" ,, , Bearer realm="http://a/t" ,service="s",'],
        ['Digest realm="d", nonce="n", qop="auth,auth-int", Basic realm="reg", Bearer realm="http://a/t",service="s"'],
        ['NTLM abc', ', ,Basic realm=reg,Bearer realm=http://a/t,service=s'],
    ],
)  # fmt: skip
def test_challenges_are_a_list(headers: list[str]) -> None:
    """In one line or in several (RFC 9110, 11.6.1); Bearer comes first, wherever it stands."""
    assert parse_challenges(headers) == [_BEARER, _BASIC]


@pytest.mark.parametrize("header", ["Digest realm=x", "", ",,", '"', "=", 'realm="x"', "Negotiate YWJj", "\xff", "Basicrealm=x"])
def test_what_we_cannot_answer_is_no_challenge(header: str) -> None:
    """Other schemes, and what is no challenge."""
    assert parse_challenges([header]) == []


@given(st.text(alphabet='aB1=," \\\t/~', max_size=60))
def test_no_line_is_too_odd(header: str) -> None:
    """Whatever a registry says, it is read to an end."""
    parse_challenges([header, f"Basic {header}", f"Bearer realm={header}"])


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
