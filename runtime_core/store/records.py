"""Typed records, read from memory and written through: List and Status never wait for a disk."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from runtime_core.errors import NotFound
from runtime_core.store.database import Database

Record = TypeVar("Record")


class Collection(Generic[Record]):
    """All records of one kind, by id. A record is immutable; a change puts a new one."""

    def __init__(
        self,
        database: Database,
        kind: str,
        *,
        encode: Callable[[Record], dict[str, Any]],
        decode: Callable[[dict[str, Any]], Record],
    ) -> None:
        self._database, self._kind = database, kind
        self._encode = encode
        #: called after each change with the record before (None: it is new) and after (None: it is deleted)
        self.on_change: Callable[[Record | None, Record | None], None] = lambda _before, _after: None
        self._lock = threading.Lock()
        self._changing = threading.Lock()
        self._records: dict[str, Record] = {
            key: decode(json.loads(document))
            for key, document in database.read("SELECT id, document FROM records WHERE kind = ?", (kind,))
        }

    def get(self, key: str) -> Record:
        """The record; NotFound when there is none."""
        record = self._records.get(key)
        if record is None:
            raise NotFound(f"{self._kind} {key!r} does not exist")
        return record

    def find(self, key: str) -> Record | None:
        """The record; None when there is none."""
        return self._records.get(key)

    def all(self) -> list[Record]:
        """All records, in the order in which they were added."""
        with self._lock:
            return list(self._records.values())

    def put(self, key: str, record: Record) -> None:
        """Write a record, new or changed; it is committed when this returns."""
        document = json.dumps(self._encode(record), separators=(",", ":"))
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO records VALUES (?, ?, ?) ON CONFLICT (kind, id) DO UPDATE SET document = excluded.document",
                (self._kind, key, document),
            )
            with self._lock:
                before = self._records.get(key)
                self._records[key] = record
        self.on_change(before, record)

    def update(self, key: str, change: Callable[[Record], Record]) -> Record:
        """Put what `change` makes of the present record, atomically; NotFound when there is none."""
        with self._changing:
            changed = change(self.get(key))
            self.put(key, changed)
        return changed

    def delete(self, key: str) -> None:
        """Idempotent."""
        with self._changing, self._database.transaction() as connection:  # not between the two halves of an update
            connection.execute("DELETE FROM records WHERE kind = ? AND id = ?", (self._kind, key))
            with self._lock:
                before = self._records.pop(key, None)
        if before is not None:
            self.on_change(before, None)
