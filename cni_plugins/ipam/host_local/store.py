"""The leases of one network: an SQLite file that one process at a time has open. Cold.

    <dataDir>/<network>/leases.db     leases, the runs of taken addresses, the address given last per range set
    <dataDir>/<network>/lock          flock, which the reference plugin takes too: a dead process holds nothing

`runs` are the longest unbroken rows of taken addresses: the free address behind any other is found by looking at one of
them, however many addresses are taken and however they lie. The rollback journal is kept and zeroed (PERSIST), so that a
transaction neither makes nor removes a file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3

from cni_plugins.ipam.host_local import reference_directory
from cni_plugins.ipam.host_local.address_key import KEY_BYTES, next_key, previous_key
from runtime_core.errors import DataLoss, FailedPrecondition, InvalidArgument, ResourceExhausted, Unavailable, from_oserror
from runtime_core.kernel import failpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterable
    from typing import Any

    from runtime_core.errors import TrivetError

DEFAULT_DIRECTORY = "/var/lib/cni/networks"
_FILE = "leases.db"
_VERSION = 1
_SCHEMA = (
    "CREATE TABLE leases (address BLOB PRIMARY KEY, container_id TEXT NOT NULL, interface TEXT NOT NULL) WITHOUT ROWID",
    "CREATE INDEX owners ON leases (container_id, interface)",
    "CREATE TABLE runs (first BLOB PRIMARY KEY, last BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE given_last (range_set INTEGER PRIMARY KEY, address BLOB NOT NULL)",
    f"PRAGMA user_version = {_VERSION}",
)
_OWNED = "SELECT address FROM leases WHERE container_id = ? AND interface = ?"
_RUN_AT_OR_BEFORE = "SELECT first, last FROM runs WHERE first <= ? ORDER BY first DESC LIMIT 1"


#: what sqlite3 itself says of bytes that are no text
_NO_TEXT = sqlite3.SQLITE_ERROR
#: the statements are ours, so that SQLITE_ERROR is a table that is gone, and SQLITE_CONSTRAINT tables that do not agree
_DAMAGES = (
    sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH,
)  # fmt: skip


class LeaseStore:
    """Locked, and one transaction, for as long as the block runs: all of it is kept, or nothing where it raises."""

    def __init__(self, data_directory: str, network: str) -> None:
        self._directory = directory_of(data_directory, network)
        self._path = f"{self._directory}/{_FILE}"

    def exists(self) -> bool:
        """Whether the network has a directory: without one there are no leases."""
        return os.path.isdir(self._directory)

    def __enter__(self) -> LeaseStore:
        self._lock = _lock_directory(self._directory)
        failpoint.hit("ipam.locked")
        try:
            self._connection = self._open()
        except BaseException:
            self._unlock()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _traceback: object) -> None:
        try:
            if kind is None:
                failpoint.hit("ipam.changed")
                self._connection.execute("COMMIT")
                failpoint.hit("ipam.committed")
            elif isinstance(error, sqlite3.Error):
                raise _to_trivet_error(error, self._path) from error
        except sqlite3.Error as refusal:
            raise _to_trivet_error(refusal, self._path) from refusal
        finally:
            self._connection.close()  # rolls back what is not committed
            self._unlock()

    def check(self) -> None:
        """DataLoss where a page of the file is not what a database has, whether or not this call would have met it."""
        (said,) = self._connection.execute("PRAGMA quick_check(1)").fetchone()
        if said != "ok":
            raise _damaged(self._path, said)

    def first_free(self, first: bytes, last: bytes, kept: Container[bytes]) -> bytes | None:
        """The first free address from `first` to `last` that is not one of `kept`."""
        while first <= last:
            run = self._run_at_or_before(first)
            candidate = next_key(run[1]) if run and run[1] >= first else first
            if candidate > last or candidate not in kept:
                return candidate if candidate <= last else None
            first = next_key(candidate)
        return None

    def insert(self, address: bytes, container_id: str, interface: str) -> bool:
        """False where somebody has it."""
        run = self._run_at_or_before(address)
        if run and run[1] >= address:
            return False
        self._connection.execute("INSERT INTO leases VALUES (?, ?, ?)", (address, container_id, interface))
        first = last = address
        if run and next_key(run[1]) == address:
            first = run[0]
        behind = self._connection.execute("SELECT last FROM runs WHERE first = ?", (next_key(address),)).fetchone()
        if behind:
            last = behind[0]
            self._connection.execute("DELETE FROM runs WHERE first = ?", (next_key(address),))
        self._connection.execute("INSERT OR REPLACE INTO runs VALUES (?, ?)", (first, last))
        return True

    def delete(self, address: bytes) -> None:
        """Of an address that is taken."""
        run = self._run_at_or_before(address)
        if run is None or run[1] < address:
            raise _damaged(self._path, "the tables contradict one another")
        self._connection.execute("DELETE FROM leases WHERE address = ?", (address,))
        self._connection.execute("DELETE FROM runs WHERE first = ?", (run[0],))
        if run[0] < address:
            self._connection.execute("INSERT INTO runs VALUES (?, ?)", (run[0], previous_key(address)))
        if address < run[1]:
            self._connection.execute("INSERT INTO runs VALUES (?, ?)", (next_key(address), run[1]))

    def owned(self, container_id: str, interface: str) -> list[bytes]:
        """Addresses; where there are none, those that a very old plugin wrote down without an interface."""
        rows = self._connection.execute(_OWNED, (container_id, interface)).fetchall()
        return [self._key(row[0]) for row in rows or self._connection.execute(_OWNED, (container_id, "")).fetchall()]

    def leases(self) -> list[tuple[bytes, str, str]]:
        """(address, container id, interface) of all, in order."""
        rows = self._connection.execute("SELECT address, container_id, interface FROM leases ORDER BY address")
        return [(self._key(address), str(container_id), str(interface)) for address, container_id, interface in rows]

    def last_allocated(self, range_set: int) -> bytes:
        row = self._connection.execute("SELECT address FROM given_last WHERE range_set = ?", (range_set,)).fetchone()
        return self._key(row[0]) if row else b""

    def set_last_allocated(self, range_set: int, address: bytes) -> None:
        self._connection.execute("INSERT OR REPLACE INTO given_last VALUES (?, ?)", (range_set, address))

    def _run_at_or_before(self, address: bytes) -> tuple[bytes, bytes] | None:
        row = self._connection.execute(_RUN_AT_OR_BEFORE, (address,)).fetchone()
        return (self._key(row[0]), self._key(row[1])) if row else None

    def _key(self, value: Any) -> bytes:
        if not isinstance(value, bytes) or len(value) not in KEY_BYTES:
            raise _damaged(self._path, f"{value!r} is not an address")
        return value

    def _open(self) -> sqlite3.Connection:
        """With a transaction begun, and whatever the reference plugin left taken over."""
        try:
            # The file is made here so that its mode is ours; SQLite takes an empty one for a new database.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise from_oserror(error, f"ipam.dataDir: {self._path}") from error
        connection = sqlite3.connect(self._path, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = PERSIST")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN IMMEDIATE")
            self._ensure_schema(connection)
            self._connection = connection
            self._import_reservations()
        except BaseException as error:
            connection.close()
            if isinstance(error, sqlite3.Error):
                raise _to_trivet_error(error, self._path) from error
            raise
        return connection

    def _ensure_schema(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            for statement in _SCHEMA:
                connection.execute(statement)
        elif version != _VERSION:
            raise FailedPrecondition(f"{self._path} has schema version {version}, this program knows {_VERSION}")

    def _import_reservations(self) -> None:
        """Reservations of the reference plugin become ours: first kept for good, only then removed as files."""
        found = reference_directory.read(self._directory, ignore=(_FILE, f"{_FILE}-journal", "lock"))
        if not found.files:
            return
        self._connection.executemany("INSERT OR IGNORE INTO leases VALUES (?, ?, ?)", found.leases)
        self._connection.executemany("INSERT OR REPLACE INTO given_last VALUES (?, ?)", found.last_allocated)
        self._rebuild_runs(address for (address,) in self._connection.execute("SELECT address FROM leases ORDER BY address"))
        self._connection.execute("COMMIT")
        failpoint.hit("ipam.taken-over")
        reference_directory.remove(self._directory, found.files)
        failpoint.hit("ipam.removed")
        self._connection.execute("BEGIN IMMEDIATE")

    def _rebuild_runs(self, addresses: Iterable[bytes]) -> None:
        runs: list[list[bytes]] = []
        for address in addresses:
            if runs and next_key(runs[-1][1]) == address:
                runs[-1][1] = address
            else:
                runs.append([address, address])
        self._connection.execute("DELETE FROM runs")
        self._connection.executemany("INSERT INTO runs VALUES (?, ?)", runs)

    def _unlock(self) -> None:
        # Said, and not left to close(): a process that was forked meanwhile may have the descriptor too.
        fcntl.flock(self._lock, fcntl.LOCK_UN)
        os.close(self._lock)


def directory_of(data_directory: str, network: str) -> str:
    if "/" in network or "\0" in network or network in ("", ".", ".."):
        raise InvalidArgument(f"name: {network!r} cannot name a directory")
    return f"{data_directory or DEFAULT_DIRECTORY}/{network}"


def _lock_directory(directory: str) -> int:
    try:
        os.makedirs(directory, 0o755, exist_ok=True)
        lock = os.open(f"{directory}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            os.close(lock)
            raise
    except OSError as error:
        raise from_oserror(error, f"ipam.dataDir: {directory}") from error
    return lock


def _to_trivet_error(error: sqlite3.Error, path: str) -> TrivetError:
    code = getattr(error, "sqlite_errorcode", _NO_TEXT) & 0xFF
    if code in _DAMAGES:
        return _damaged(path, str(error))
    if code == sqlite3.SQLITE_FULL:
        return ResourceExhausted(f"{path}: {error}")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return from_oserror(PermissionError(errno.EACCES, str(error)), path)
    return Unavailable(f"{path}: {error}")


def _damaged(path: str, why: str) -> DataLoss:
    return DataLoss(f"{path} is damaged ({why}): move it away once no container of the network runs")
