"""The database of a daemon: one SQLite file, one writer.

WAL with synchronous=NORMAL: a commit survives kill -9 at once and a power cut at the
next checkpoint; pods do not survive a power cut anyway, and image content is made
durable by itself.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runtime_core.errors import DataLoss, FailedPrecondition, ResourceExhausted, TrivetError
from runtime_core.store.locks import lock_file

#: Who reads has all in memory (records.py); more would be kept after the largest crowd of pods.
_CACHE_KIB = 512
#: One entry per schema version; a newer program runs those that a file has not seen.
_MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE records (kind TEXT NOT NULL, id TEXT NOT NULL, document TEXT NOT NULL,
                          PRIMARY KEY (kind, id)) WITHOUT ROWID;
    CREATE TABLE ledger (number INTEGER PRIMARY KEY, owner TEXT NOT NULL, kind TEXT NOT NULL,
                         reference TEXT NOT NULL, UNIQUE (owner, kind, reference));
    """,
)


class Database:
    """The file <directory>/state.db, locked against a second daemon for as long as it is open."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock_descriptor = lock_file(directory / "lock")
        self._path = directory / "state.db"
        self._mutex = threading.Lock()
        try:
            self._connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, cached_statements=64)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
            self._migrate()
        except sqlite3.DatabaseError as error:
            os.close(self._lock_descriptor)
            raise DataLoss(f"{self._path}: {error}") from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything in the block, or nothing of it."""
        with self._mutex:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException as error:
                if self._connection.in_transaction:  # a full disk has ended it already
                    self._connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.OperationalError):
                    kind = ResourceExhausted if error.sqlite_errorcode == sqlite3.SQLITE_FULL else TrivetError
                    raise kind(f"{self._path}: {error}") from error
                raise

    def read(self, query: str, arguments: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a SELECT."""
        with self._mutex:
            return self._connection.execute(query, arguments).fetchall()

    def close(self) -> None:
        """Close the file and release its lock."""
        with self._mutex:
            self._connection.close()
            os.close(self._lock_descriptor)

    def _migrate(self) -> None:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version > len(_MIGRATIONS):
            raise FailedPrecondition(f"{self._path} has schema version {version}, this program knows {len(_MIGRATIONS)}")
        for number, script in enumerate(_MIGRATIONS[version:], version + 1):
            self._connection.executescript(f"BEGIN;{script};PRAGMA user_version={number};COMMIT;")
