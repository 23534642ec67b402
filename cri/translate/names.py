"""Names, ids, paths and durations: how they are made, and what the caller may write. Pure but for the randomness of ids.

Control characters are refused before anything is read, by `runtime_core/serving/request.py`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from runtime_core.errors import InvalidArgument, ResourceExhausted

#: of all labels and annotations of one object; the API server allows 256 KiB of annotations
MOST_METADATA = 1024 * 1024
#: bytes of a path and of a name in it (limits.h)
_LONGEST_PATH, _LONGEST_NAME = 4095, 255
#: three years, which clocks and system calls can still count
_LONGEST_SECONDS = 10**8


def new_id() -> str:
    """64 random hexadecimal digits."""
    return os.urandom(32).hex()


def sandbox_name(metadata: Mapping[str, object]) -> str:
    return "_".join(str(metadata[key]) for key in ("name", "namespace", "uid", "attempt"))


def container_name(metadata: Mapping[str, object], pod: Mapping[str, object]) -> str:
    """The name that is unique on this node: container, pod, namespace, uid and attempt."""
    return "_".join(str(part) for part in (metadata["name"], pod["name"], pod["namespace"], pod["uid"], metadata["attempt"]))


def check_required(value: str, field: str) -> str:
    """`value`, which must be there and have no control characters; InvalidArgument names `field`."""
    if not value:
        raise InvalidArgument(f"{field} is missing")
    return value


def seconds(value: int, field: str) -> float:
    """A duration; longer ones are clamped to the maximum."""
    if value < 0:
        raise InvalidArgument(f"{field}: {value} is negative")
    return float(min(value, _LONGEST_SECONDS))


def check_total_size(field: str, *maps: Mapping[str, str]) -> None:
    """ResourceExhausted when labels and annotations together are larger than MOST_METADATA bytes."""
    size = sum(len(key) + len(value) for mapping in maps for key, value in mapping.items())
    if size > MOST_METADATA:
        raise ResourceExhausted(
            f"{field}.labels, {field}.annotations: {size} bytes together are over the limit of {MOST_METADATA}"
        )


def check_absolute_path(path: str, field: str, *, room: int = 0) -> str:
    """An absolute path without "..", as every path from outside must be; `room`: bytes that are yet to be added."""
    if not path.startswith("/"):
        raise InvalidArgument(f"{field}: {path!r} is not an absolute path")
    if ".." in path.split("/"):
        raise InvalidArgument(f"{field}: {path!r} must not contain '..'")
    if "\0" in path:  # of an image: a request's is refused before
        raise InvalidArgument(f"{field}: {path!r} contains a NUL character")
    return check_length(path, field, room=room)


def check_length(path: str, field: str, *, room: int = 0) -> str:
    """A path that a file system can have."""
    encoded = path.encode(errors="surrogatepass")
    if len(encoded) + room > _LONGEST_PATH or any(len(name) > _LONGEST_NAME for name in encoded.split(b"/")):
        raise InvalidArgument(f"{field}: {path[:80]!r}… is longer than a path can be")
    return path
