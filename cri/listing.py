"""What every List and its stream twin do alike: select by labels, answer in pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def has_labels(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """All that the selector names, with those values."""
    return all(labels.get(key) == value for key, value in selector.items())


def pages(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """At least one item each; no page at all when there is no item."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
