"""The ids that this driver gives out; whatever else comes as an id reaches neither a record nor a path."""

from __future__ import annotations

import re
import secrets

_VOLUME, _SNAPSHOT, _GROUP = "vol", "snap", "group"
_TAIL = r"-[0-9a-f]{32}"
_FORMS = {kind: re.compile(kind + _TAIL) for kind in (_VOLUME, _SNAPSHOT, _GROUP)}


def new_volume() -> str:
    return _new(_VOLUME)


def new_snapshot() -> str:
    return _new(_SNAPSHOT)


def new_group() -> str:
    return _new(_GROUP)


def is_volume(text: str) -> bool:
    return _FORMS[_VOLUME].fullmatch(text) is not None


def is_snapshot(text: str) -> bool:
    return _FORMS[_SNAPSHOT].fullmatch(text) is not None


def is_group(text: str) -> bool:
    return _FORMS[_GROUP].fullmatch(text) is not None


def _new(kind: str) -> str:
    return f"{kind}-{secrets.token_hex(16)}"
