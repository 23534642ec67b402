"""The ledger: which owner holds which thing that outlives the process.

Before a thing is acquired that a crash would leave behind (a network namespace, a cgroup,
a mount, an address, a snapshot, a monitor), its owner, kind and reference are written
here; after its release the row goes. Rollback of an error, recovery after kill -9 and
garbage collection are then one path: `sweep` an owner that should not exist. So every
release is idempotent.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from runtime_core.errors import TrivetError
from runtime_core.store.database import Database


@dataclass(frozen=True, slots=True)
class Entry:
    """One row: `owner` holds the thing `reference` of this `kind`."""

    owner: str
    kind: str
    reference: str


class Ledger:
    """Entries in the order of their acquisition."""

    def __init__(self, database: Database, releasers: Mapping[str, Callable[[Entry], None]]) -> None:
        """`releasers`: kind → how a thing of that kind is given back, idempotently."""
        self._database = database
        self._releasers = dict(releasers)

    def acquire(self, owner: str, *things: tuple[str, str]) -> None:
        """Record (kind, reference) pairs before they exist, in one transaction."""
        with self._database.transaction() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO ledger (owner, kind, reference) VALUES (?, ?, ?)",
                [(owner, kind, reference) for kind, reference in things],
            )

    def forget(self, entries: Iterable[Entry]) -> None:
        """Drop rows whose things are gone."""
        with self._database.transaction() as connection:
            connection.executemany(
                "DELETE FROM ledger WHERE owner = ? AND kind = ? AND reference = ?",
                [(entry.owner, entry.kind, entry.reference) for entry in entries],
            )

    def held(self, owner: str | None = None) -> list[Entry]:
        """Everything that is held, or that `owner` holds; the oldest first."""
        if owner is None:
            rows = self._database.read("SELECT owner, kind, reference FROM ledger ORDER BY number")
        else:
            rows = self._database.read("SELECT owner, kind, reference FROM ledger WHERE owner = ? ORDER BY number", (owner,))
        return [Entry(*row) for row in rows]

    def owners(self) -> set[str]:
        """Everybody who holds something."""
        return {owner for (owner,) in self._database.read("SELECT DISTINCT owner FROM ledger")}

    def guard(self, undo: ExitStack, owner: str, *things: tuple[str, str]) -> None:
        """`acquire`, and sweep the owner when `undo` unwinds."""
        self.acquire(owner, *things)
        undo.callback(self.sweep, owner)

    def sweep(self, owner: str, kinds: Collection[str] = ()) -> list[TrivetError]:
        """Release all that `owner` holds (of `kinds`, when given), newest first.

        Goes on past errors, keeps the rows of what failed, and returns the errors.
        """
        errors: list[TrivetError] = []
        released: list[Entry] = []
        for entry in reversed(self.held(owner)):
            if kinds and entry.kind not in kinds:
                continue
            try:
                self._releasers[entry.kind](entry)
            except TrivetError as error:
                errors.append(error)
                continue
            released.append(entry)
        self.forget(released)
        return errors
