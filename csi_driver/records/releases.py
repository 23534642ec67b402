"""Releases what the ledger lists: the same functions for rollback, deletion and recovery."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from csi_driver.records.schema import Records
from runtime_core.errors import from_oserror
from runtime_core.interfaces.volume import VolumeBackend
from runtime_core.kernel import failpoint
from runtime_core.store.ledger import Entry, Ledger

#: what the controller service holds; the node service releases its own things
KINDS = ("volume", "snapshot", "group")


def releasers(backend: VolumeBackend, records: Records) -> dict[str, Callable[[Entry], None]]:
    """By kind. The bytes go first: a record without bytes is told as unhealthy, bytes without a record by nobody."""

    def volume(entry: Entry) -> None:
        with as_trivet_errors(f"deleting {entry.reference}"):
            backend.delete(entry.reference)
        failpoint.hit("csi.release.volume")
        records.volumes.delete(entry.reference)

    def snapshot(entry: Entry) -> None:
        with as_trivet_errors(f"deleting {entry.reference}"):
            backend.delete_snapshot(entry.reference)
        failpoint.hit("csi.release.snapshot")
        records.snapshots.delete(entry.reference)

    def group(entry: Entry) -> None:
        records.groups.delete(entry.reference)

    return {"volume": volume, "snapshot": snapshot, "group": group}


def release(ledger: Ledger, owner: str) -> None:
    """All bytes and records that `owner` holds; raises the first error, and what could not be released stays on the list."""
    errors = ledger.sweep(owner, KINDS)
    if errors:
        raise errors[0]


@contextmanager
def as_trivet_errors(doing: str) -> Iterator[None]:
    """Raise an OSError as a TrivetError, so that it fails one volume and not the whole recovery."""
    try:
        yield
    except OSError as error:
        raise from_oserror(error, doing) from error
