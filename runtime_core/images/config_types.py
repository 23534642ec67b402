"""The JSON types of an image configuration, key by key; pure.

Source: OCI image specification, config.md "Properties". null is as good as leaving a key out; keys that are
not of the specification are nobody's matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from runtime_core.errors import InvalidArgument

_Check = Callable[[Any, str], None]


def check(document: dict[str, Any]) -> None:
    """InvalidArgument naming the key whose value is of another type than the specification says."""
    _members(_DOCUMENT)(document, "")


def _text(value: Any, key: str) -> None:
    if not isinstance(value, str):
        raise InvalidArgument(f"the image configuration's {key} is not a string")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise InvalidArgument(f"the image configuration's {key} has half of a surrogate pair, which is no text")


def _truth(value: Any, key: str) -> None:
    if not isinstance(value, bool):
        raise InvalidArgument(f"the image configuration's {key} is neither true nor false")


def _texts(value: Any, key: str) -> None:
    if not isinstance(value, list):
        raise InvalidArgument(f"the image configuration's {key} is not a list")
    for number, item in enumerate(value):
        _text(item, f"{key}[{number}]")


def _object(value: Any, key: str) -> None:
    if not isinstance(value, dict):
        raise InvalidArgument(f"the image configuration's {key} is not an object")


def _map_of(check_value: _Check) -> _Check:
    def check_map(value: Any, key: str) -> None:
        _object(value, key)
        for name, item in value.items():
            _text(name, f"{key}: a key")
            if item is not None:
                check_value(item, f"{key}[{name!r}]")

    return check_map


def _members(known: Mapping[str, _Check]) -> _Check:
    def check_members(value: Any, key: str) -> None:
        _object(value, key)
        for name, check_value in known.items():
            if value.get(name) is not None:
                check_value(value[name], f"{key}.{name}" if key else name)

    return check_members


def _history(value: Any, key: str) -> None:
    if not isinstance(value, list):
        raise InvalidArgument(f"the image configuration's {key} is not a list")
    for number, item in enumerate(value):
        _members(_HISTORY_ENTRY)(item, f"{key}[{number}]")


_HISTORY_ENTRY = {"created": _text, "author": _text, "created_by": _text, "comment": _text, "empty_layer": _truth}
_CONFIG = {
    "User": _text, "ExposedPorts": _map_of(_object), "Env": _texts, "Entrypoint": _texts, "Cmd": _texts,
    "Volumes": _map_of(_object), "WorkingDir": _text, "Labels": _map_of(_text), "StopSignal": _text, "ArgsEscaped": _truth,
}  # fmt: skip
_DOCUMENT = {
    "created": _text, "author": _text, "architecture": _text, "variant": _text, "os": _text, "os.version": _text,
    "os.features": _texts, "config": _members(_CONFIG), "history": _history,
}  # fmt: skip
