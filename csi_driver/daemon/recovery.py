"""Recovery at the start: unfinished operations are completed or undone, and data without a record is deleted."""

from __future__ import annotations

from collections.abc import Callable

from csi_driver.controller.expand import grow
from csi_driver.controller.modify import apply_changes
from csi_driver.records.releases import KINDS, as_trivet_errors
from csi_driver.records.schema import VolumeRecord
from csi_driver.service import Service
from runtime_core.errors import FailedPrecondition, TrivetError

ReportError = Callable[[str, TrivetError], None]


def recover(service: Service, report_error: ReportError) -> None:
    """Errors go to `report_error`, and the next start, or a retry by the caller, tries again.

    FailedPrecondition when there is data and not a single record: somebody lost the records, and nothing is deleted.
    """
    _check_records(service)
    _sweep(service, report_error)
    for record in service.records.volumes.all():
        if record.phase == "ready":
            _finish(service, record, report_error)
    _delete_unknown(service, report_error)


def _check_records(service: Service) -> None:
    """The ledger comes before the bytes: a crash of ours never leaves bytes and an empty store."""
    records = service.records
    if records.volumes.all() or records.snapshots.all() or records.groups.all() or service.ledger.held():
        return
    found = service.backend.volumes() | service.backend.snapshots()
    if found:
        raise FailedPrecondition(
            f"--root: {service.settings.root} holds the data of {', '.join(sorted(found)[:3])}"
            f"{' and more' if len(found) > 3 else ''}, but no record of it: put state.db back, or move the data away"
        )


def _sweep(service: Service, report_error: ReportError) -> None:
    """Remove what is half-made or half-deleted; a retry creates it again, or finds it deleted."""
    ready = {record.id for record in service.records.volumes.all() if record.phase == "ready"}
    ready |= {record.id for record in service.records.snapshots.all() if record.phase == "ready"}
    ready |= {record.id for record in service.records.groups.all() if record.phase == "ready"}
    owners = {entry.owner: None for entry in service.ledger.held() if entry.kind in KINDS and entry.owner not in ready}
    for owner in owners:
        service.log.warning("recovery", of=owner, what="was not finished and is deleted")
        for failure in service.ledger.sweep(owner, KINDS):
            report_error(owner, failure)


def _finish(service: Service, record: VolumeRecord, report_error: ReportError) -> None:
    try:
        with as_trivet_errors(f"recovering {record.id}"):
            if record.growing_to:
                record = grow(service, record, record.growing_to)[0]
            if record.changing_to is not None:
                apply_changes(service, record, record.changing_to)
    except TrivetError as error:
        report_error(record.id, error)


def _delete_unknown(service: Service, report_error: ReportError) -> None:
    volumes = {record.id for record in service.records.volumes.all()}
    snapshots = {record.id for record in service.records.snapshots.all()}
    for found, known, delete in (
        (service.backend.volumes(), volumes, service.backend.delete),
        (service.backend.snapshots(), snapshots, service.backend.delete_snapshot),
    ):
        for unknown in sorted(found - known):
            service.log.warning("recovery", of=unknown, what="is on disk, no record knows it: deleted")
            try:
                with as_trivet_errors(f"deleting {unknown}"):
                    delete(unknown)
            except TrivetError as error:
                report_error(unknown, error)
