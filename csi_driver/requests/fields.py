"""Checks of single request fields, as the CSI specification demands them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from runtime_core.errors import InvalidArgument, OutOfRange

#: CSI, Size Limits: bytes of a string, and of all keys and values of a map
_LONGEST_STRING = 128
_LARGEST_MAP = 4096
#: CSI, CreateVolumeRequest.name: control characters beside common white space
_BANNED = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
#: what sidecars add for a driver's information; never a parameter of the volume
_SIDECARS = "csi.storage.k8s.io/"


def check_name(text: str, field: str = "name") -> str:
    """`text` as the name of a volume, snapshot or group."""
    check_required(text, field)
    if len(text.encode()) > _LONGEST_STRING:
        raise InvalidArgument(f"{field}: is longer than {_LONGEST_STRING} bytes")
    if found := _BANNED.search(text):
        raise InvalidArgument(f"{field}: contains the control character U+{ord(found[0]):04X}")
    return text


def check_required(text: str, field: str) -> str:
    """InvalidArgument when a required string is missing."""
    if not text:
        raise InvalidArgument(f"{field}: is missing")
    return text


def check_parameters(found: Mapping[str, str], known: frozenset[str], field: str) -> dict[str, str]:
    """`found` without what sidecars add. An unknown key is named in the error, its value never: it may be a secret."""
    if sum(len(key.encode()) + len(value.encode()) for key, value in found.items()) > _LARGEST_MAP:
        raise InvalidArgument(f"{field}: are larger than {_LARGEST_MAP} bytes")
    kept = {key: value for key, value in found.items() if not key.startswith(_SIDECARS)}
    for key in sorted(set(kept) - known):
        understood = ", ".join(sorted(known)) or "none"
        raise InvalidArgument(f"{field}: {key[:_LONGEST_STRING]!r} is not known (known are: {understood})")
    return kept


def check_size_range(required: int, limit: int) -> None:
    """CSI CapacityRange: 0 leaves an end open, one end is there, neither is negative."""
    for end, value in (("required_bytes", required), ("limit_bytes", limit)):
        if value < 0:
            raise InvalidArgument(f"capacity_range.{end}: {value} is negative")
    if not required and not limit:
        raise InvalidArgument("capacity_range: has neither required_bytes nor limit_bytes")
    if limit and required > limit:
        raise OutOfRange(f"capacity_range: required_bytes {required} is more than limit_bytes {limit}")
