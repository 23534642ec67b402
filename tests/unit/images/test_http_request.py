"""Where a redirect may lead."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from runtime_core.errors import Unavailable
from runtime_core.images.http_request import _follow

_HTTPS, _HTTP = urlsplit("https://r.example/v2/a/blobs/x?ns=b"), urlsplit("http://r.example/v2/a")


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("https://cdn.example/x?sig=1", "https://cdn.example/x?sig=1"),
        ("/other", "https://r.example/other"),
        ("y", "https://r.example/v2/a/blobs/y"),
        ("//cdn.example/x", "https://cdn.example/x"),
    ],
)
def test_a_location_is_read_as_of_the_present_url(location: str, url: str) -> None:
    """Absolute or relative."""
    assert _follow(_HTTPS, _HTTPS, location).geturl() == url


def test_from_http_one_may_go_to_https_and_not_back_to_where_one_began_with_https() -> None:
    """What began with TLS stays with it (the body of a manifest by tag is verified by nothing else)."""
    assert _follow(_HTTP, _HTTP, "https://cdn.example/x").scheme == "https"
    for location in ("http://cdn.example/x", "http://r.example/v2/a"):
        with pytest.raises(Unavailable, match="from https to http://"):
            _follow(_HTTPS, _HTTPS, location)


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://x/", "http://[::1", "gopher:x"])
def test_other_schemes_and_what_is_no_url_are_refused(location: str) -> None:
    """By the registry's name."""
    with pytest.raises(Unavailable, match=r"^r\.example redirects"):
        _follow(_HTTP, _HTTP, location)
