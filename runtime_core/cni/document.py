"""JSON from outside that everything below can be made of: file names, messages of the kernel, rows of a database; pure. Cold."""

from __future__ import annotations

import json

from runtime_core.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: of objects and lists in one another: no option needs ten, and what walks through them is recursive
_DEEPEST = 64


def read(text: bytes) -> Any:
    """`text`, which is UTF-8; ValueError where it is none, or no JSON (RFC 8259: no NaN)."""
    try:
        return json.loads(text.decode(), parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError(f"nested too deeply: {error}") from error


def check(value: Any, where: str = "", depth: int = 0) -> None:
    """InvalidArgument naming the place of what no file name and no message can hold: NUL, half of a surrogate pair, and
    nesting without measure."""
    if isinstance(value, str):
        if not _is_sound(value):
            raise InvalidArgument(f"{where}: {value[:100]!r} has a NUL, or half of a surrogate pair")
    elif isinstance(value, (dict, list)):
        if depth == _DEEPEST:
            raise InvalidArgument(f"{where}: nested more than {_DEEPEST} deep")
        if isinstance(value, dict):
            for key, inner in value.items():
                check(key, f"{where}, a key", depth)
                check(inner, f"{where}.{key}".lstrip("."), depth + 1)
        else:
            for number, inner in enumerate(value):
                check(inner, f"{where}[{number}]", depth + 1)


def cleaned(value: Any, depth: int = 0) -> Any:
    """The part of `value` that `check` takes: for DEL, which a configuration that is bad must not stop."""
    if isinstance(value, str):
        return value if _is_sound(value) else ""
    if isinstance(value, (dict, list)) and depth == _DEEPEST:
        return None
    if isinstance(value, dict):
        return {key: cleaned(inner, depth + 1) for key, inner in value.items() if _is_sound(key)}
    return [cleaned(inner, depth + 1) for inner in value] if isinstance(value, list) else value


def _is_sound(text: str) -> bool:
    if text.isascii():
        return "\0" not in text
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")
