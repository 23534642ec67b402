"""Pages of a list: in the order of creation, so that a page never repeats and what is new comes last."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol, TypeVar

from runtime_core.errors import Aborted, InvalidArgument

_TOKEN = re.compile(r"[0-9a-f]{16}\.(?:vol|snap)-[0-9a-f]{32}")


class Listable(Protocol):
    @property
    def id(self) -> str:
        """The id, which orders entries of the same time."""
        ...

    @property
    def created(self) -> int:
        """Nanoseconds since the epoch."""
        ...


Item = TypeVar("Item", bound=Listable)


def page(items: Sequence[Item], max_entries: int, starting_token: str) -> tuple[list[Item], str]:
    """The entries after `starting_token` and the token of the next page, "" after the last one.

    A token names the last entry of its page, which may be gone by the next call. 0 entries: no limit.
    """
    if max_entries < 0:
        raise InvalidArgument(f"max_entries: {max_entries} is negative")
    if starting_token and not _TOKEN.fullmatch(starting_token):
        raise Aborted("starting_token: is not one that this driver gave")
    rest = sorted((item for item in items if _token(item) > starting_token), key=_token)
    if not max_entries or len(rest) <= max_entries:
        return rest, ""
    return rest[:max_entries], _token(rest[max_entries - 1])


def _token(item: Listable) -> str:
    return f"{item.created:016x}.{item.id}"
