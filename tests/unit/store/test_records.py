"""Records are what was put last, whoever else changes or deletes them meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime_core.errors import NotFound
from runtime_core.store.database import Database
from runtime_core.store.records import Collection


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path)
    yield database
    database.close()


def collection(database: Database) -> "Collection[dict[str, Any]]":
    return Collection(database, "thing", encode=dict, decode=dict)


def test_what_is_deleted_during_an_update_stays_deleted(database: Database) -> None:
    """In memory and on disk."""
    things = collection(database)
    things.put("a", {"count": 1})
    deleting = threading.Thread(target=lambda: things.delete("a"))

    def change(present: dict[str, Any]) -> dict[str, Any]:
        deleting.start()
        deleting.join(0.3)  # it may wait for the update, and must not be undone by it
        return {"count": present["count"] + 1}

    things.update("a", change)
    deleting.join()
    assert things.find("a") is None and collection(database).find("a") is None


def test_every_change_is_told_with_what_was_before(database: Database) -> None:
    """Made, changed, deleted; what changes nothing tells nothing."""
    things, told = collection(database), []
    things.on_change = lambda before, after: told.append((before, after))
    things.put("a", {"n": 1})
    things.update("a", lambda _present: {"n": 2})
    things.delete("a")
    things.delete("a")
    with pytest.raises(NotFound):
        things.update("a", lambda present: present)
    assert told == [(None, {"n": 1}), ({"n": 1}, {"n": 2}), ({"n": 2}, None)]
