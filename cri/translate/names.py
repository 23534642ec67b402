"""Names and ids: how they are made, and what the caller may write in them. Pure but for the randomness of ids."""

from __future__ import annotations

import os
from collections.abc import Mapping

from runtime_core.errors import InvalidArgument, ResourceExhausted

#: of all labels and annotations of one object; the API server allows 256 KiB of annotations
MOST_METADATA = 1024 * 1024


def new_id() -> str:
    return os.urandom(32).hex()


def sandbox_name(metadata: Mapping[str, object]) -> str:
    return "_".join(str(metadata[key]) for key in ("name", "namespace", "uid", "attempt"))


def container_name(metadata: Mapping[str, object], pod: Mapping[str, object]) -> str:
    return "_".join(str(part) for part in (metadata["name"], pod["name"], pod["namespace"], pod["uid"], metadata["attempt"]))


def check_text(value: str, field: str) -> str:
    """A value without control characters, which would start lines of their own in files (CVE-2022-4318)."""
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise InvalidArgument(f"{field}: {value!r} contains control characters")
    return value


def required(value: str, field: str) -> str:
    if not value:
        raise InvalidArgument(f"{field} is missing")
    return check_text(value, field)


def budget(field: str, *maps: Mapping[str, str]) -> None:
    size = sum(len(key) + len(value) for one in maps for key, value in one.items())
    if size > MOST_METADATA:
        raise ResourceExhausted(
            f"{field}.labels, {field}.annotations: {size} bytes together are over the limit of {MOST_METADATA}"
        )


def absolute_path(path: str, field: str) -> str:
    """An absolute path without "..", as every path from outside must be."""
    if not path.startswith("/"):
        raise InvalidArgument(f"{field}: {path!r} is not an absolute path")
    if ".." in path.split("/"):
        raise InvalidArgument(f"{field}: {path!r} must not contain '..'")
    return check_text(path, field)
