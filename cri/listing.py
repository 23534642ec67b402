"""What the List calls and their streaming variants share: label selectors, pages, and cached messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Record = TypeVar("Record")


def has_labels(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """All that the selector names, with those values."""
    return all(labels.get(key) == value for key, value in selector.items())


def pages(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """At least one item each; no page at all when there is no item."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


class Items(Generic[Record, Item]):
    """The List message of every record, kept while the record is the same object: records are frozen, a change is a new one."""

    def __init__(self, build: Callable[[Record], Item]) -> None:
        self._build = build
        self._known: dict[int, tuple[Record, Item]] = {}

    def with_messages(self, records: Iterable[Record]) -> Iterator[tuple[Record, Item]]:
        """All records with their messages, which must not be changed; those of records that are gone are forgotten."""
        known, kept = self._known, {}
        for record in records:
            # A kept record lives, so no other object has its id.
            pair = known.get(id(record)) or (record, self._build(record))
            kept[id(record)] = pair
        self._known = kept
        return iter(kept.values())
