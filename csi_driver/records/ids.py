"""Ids of volumes, snapshots and groups: made, and recognised, so that no other id becomes part of a path."""

from __future__ import annotations

import re
import secrets

_VOLUME, _SNAPSHOT, _GROUP = "vol", "snap", "group"
_TAIL = r"-[0-9a-f]{32}"
_FORMS = {kind: re.compile(kind + _TAIL) for kind in (_VOLUME, _SNAPSHOT, _GROUP)}


def new_volume_id() -> str:
    """A random id "vol-…"."""
    return _new(_VOLUME)


def new_snapshot_id() -> str:
    """A random id "snap-…"."""
    return _new(_SNAPSHOT)


def new_group_id() -> str:
    """A random id "group-…"."""
    return _new(_GROUP)


def is_volume_id(text: str) -> bool:
    """Whether `text` has the form of our volume ids."""
    return _FORMS[_VOLUME].fullmatch(text) is not None


def is_snapshot_id(text: str) -> bool:
    """Whether `text` has the form of our snapshot ids."""
    return _FORMS[_SNAPSHOT].fullmatch(text) is not None


def is_group_id(text: str) -> bool:
    """Whether `text` has the form of our group ids."""
    return _FORMS[_GROUP].fullmatch(text) is not None


def _new(kind: str) -> str:
    return f"{kind}-{secrets.token_hex(16)}"
