"""JSON that nothing can be made of: refused by its place, and cleaned for DEL."""

from __future__ import annotations

from typing import Any

import pytest

from runtime_core.cni import document
from runtime_core.errors import InvalidArgument


def _nested(depth: int) -> Any:
    value: Any = "x"
    for _time in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"name": "a\0b"}, "name"),
        ({"ipam": {"ranges": [[{"subnet": "\ud800"}]]}}, "ipam.ranges[0][0].subnet"),
        ({"args": {"\udcff": 1}}, "args, a key"),
        ({"runtimeConfig": _nested(64)}, r"runtimeConfig(\[0\]){63}"),
    ],
)
def test_what_no_name_can_hold_is_refused_by_its_place(value: Any, place: str) -> None:
    with pytest.raises(InvalidArgument, match=rf"^{place if '{' in place else place.replace('[', '.').replace(']', '.')}: "):
        document.check(value)
    document.check(document.cleaned(value))


def test_what_is_sound_stays_as_it_is() -> None:
    value = {"name": "é\u202e", "list": [1, None, 2.5, {"a": True}], "deep": _nested(62)}
    document.check(value)
    assert document.cleaned(value) == value


@pytest.mark.parametrize(
    "text", [b"NaN", b"[Infinity]", b"-Infinity", b"\xff", b'"\xed\xa0\x80"', b"[" * 99999, b"1" * 5000, b"", b"{"]
)
def test_what_is_no_json(text: bytes) -> None:
    with pytest.raises(ValueError):
        document.read(text)
