"""What lists have in common."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cri.listing import Items, has_labels, pages


@dataclass(frozen=True)
class _Record:
    name: str


def test_a_message_is_built_once_for_each_record() -> None:
    """And again for a changed one; what is gone is forgotten."""
    built: list[str] = []

    def build(record: _Record) -> str:
        built.append(record.name)
        return record.name.upper()

    items, first, second = Items(build), _Record("a"), _Record("b")
    assert [item for _record, item in items.with_messages([first, second])] == ["A", "B"]
    assert list(items.with_messages([second, first])) == [(second, "B"), (first, "A")]
    assert built == ["a", "b"]
    changed = replace(first, name="c")
    assert [item for _record, item in items.with_messages([changed, second])] == ["C", "B"]
    assert list(items.with_messages([second])) == [(second, "B")]
    assert built == ["a", "b", "c"]
    assert [item for _record, item in items.with_messages([changed])] == ["C"]
    assert built == ["a", "b", "c", "c"]


def test_labels_and_pages() -> None:
    """All of the selector, and no page where there is no item."""
    assert has_labels({"a": "1", "b": "2"}, {"a": "1"})
    assert not has_labels({"a": "1"}, {"a": "1", "b": "2"})
    assert list(pages([1, 2, 3], 2)) == [[1, 2], [3]]
    assert list(pages([], 2)) == []
