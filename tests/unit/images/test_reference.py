"""Image references, strictly."""

from __future__ import annotations

import pytest

from runtime_core.errors import InvalidArgument
from runtime_core.images.reference import parse_reference

_DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("user/app:1", "docker.io/user/app:1"),
        ("localhost/app", "localhost/app:latest"),
        ("127.0.0.1:5000/a/b:v1", "127.0.0.1:5000/a/b:v1"),
        ("registry.k8s.io/pause:3.10@" + _DIGEST, "registry.k8s.io/pause:3.10@" + _DIGEST),
        ("quay.io/x@" + _DIGEST, "quay.io/x@" + _DIGEST),
        ("[::1]:5000/x", "[::1]:5000/x:latest"),
    ],
)
def test_a_reference_is_made_whole(text: str, whole: str) -> None:
    """Domain, library/ and tag are filled in."""
    assert str(parse_reference(text)) == whole


@pytest.mark.parametrize(
    "text",
    ["", "UPPER", "a b", "x:", "x:ta g", "x@sha256:short", "../x", "x/../y", "http://x/y", "x" * 300, "-x/y", "x\ny"],
)
def test_a_malformed_reference_is_refused_by_its_field(text: str) -> None:
    """The message names image.image."""
    with pytest.raises(InvalidArgument, match="image.image"):
        parse_reference(text)
