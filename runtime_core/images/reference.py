"""Image references: registry.example/path/name:tag@sha256:… (distribution's reference grammar)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from runtime_core.errors import InvalidArgument

_DOMAIN = re.compile(
    r"(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
)
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}")
_LONGEST = 255
_DEFAULT_DOMAIN, _DEFAULT_TAG = "docker.io", "latest"


@dataclass(frozen=True, slots=True)
class Reference:
    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """Domain and path, without tag and digest."""
        return f"{self.domain}/{self.path}"

    @property
    def target(self) -> str:
        """What a registry is asked for: the digest where there is one."""
        return self.digest or self.tag

    @property
    def tagged(self) -> str:
        return f"{self.name}:{self.tag}" if self.tag else ""

    def __str__(self) -> str:
        return self.name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def parse_reference(text: str, field: str = "image.image") -> Reference:
    """The normalised reference: docker.io and library/ filled in, tag latest when neither tag nor digest.

    Raises InvalidArgument naming `field`.
    """
    if not text:
        raise InvalidArgument(f"{field}: an image reference must not be empty")
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise InvalidArgument(f"{field}: {text!r} has a malformed digest")
    name, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        name, tag = rest, ""
    elif not _TAG.fullmatch(tag):
        raise InvalidArgument(f"{field}: {text!r} has a malformed tag")
    domain, path = _split_domain(name)
    if not _DOMAIN.fullmatch(domain) or not _PATH.fullmatch(path):
        raise InvalidArgument(f"{field}: {text!r} is not an image reference")
    if len(path) > _LONGEST:
        raise InvalidArgument(f"{field}: the repository name is longer than {_LONGEST} characters")
    return Reference(domain, path, tag or ("" if digest else _DEFAULT_TAG), digest)


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


def _split_domain(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        domain, path = _DEFAULT_DOMAIN, name
    else:
        domain, path = first, rest
    if domain == "index.docker.io":
        domain = _DEFAULT_DOMAIN
    if domain == _DEFAULT_DOMAIN and "/" not in path:
        path = f"library/{path}"
    return domain, path
