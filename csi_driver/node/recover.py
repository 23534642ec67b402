"""Recovery of the node's mounts and devices: they are made to match the records, and unfinished work is undone.

The kubelet repeats its calls, after a crash of ours and after a reboot: a record of what is
no longer there must not keep it from succeeding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from csi_driver.node import mount_point, mount_table, release, stage, unstage
from csi_driver.node.mount_table import Mount
from csi_driver.node.unfreeze import unfreeze
from csi_driver.records.schema import VolumeRecord
from csi_driver.service import Service
from runtime_core.errors import InvalidArgument, NotFound, TrivetError, from_oserror
from runtime_core.store.ledger import Entry


def recover_node(service: Service) -> None:
    """Before the first call. What fails for one volume is logged, and does not hold the others."""
    for entry in reversed([entry for entry in service.ledger.held() if entry.kind in release.KINDS]):
        if not _is_recorded(service, entry):
            _log_errors(service, entry.owner, _release, entry)
    mounted = mount_table.mounts_below(service.settings.kubelet_dir)
    for record in service.records.volumes.all():
        _log_errors(service, record.id, _reconcile, record, mounted)
    records = service.records.volumes.all()
    for path in _unknown_mounts(service, records, mounted):
        _log_errors(service, path, release.unmount_last, path, "path")
    for record in records:
        if record.staging is None and not record.targets:
            _log_errors(service, record.id, _detach, record)


def _log_errors(service: Service, subject: str, function: Callable[..., None], *arguments: Any) -> None:
    try:
        function(service, *arguments)
    except (TrivetError, OSError) as error:
        said = error if isinstance(error, TrivetError) else from_oserror(error, "recovery")
        service.log.error("recovery", of=subject, error=str(said))


def _unknown_mounts(service: Service, records: list[VolumeRecord], mounted: dict[str, Mount]) -> list[str]:
    """Mounts of our images that no record explains, the innermost first."""
    known = {path for record in records for path in _paths(record)}
    volumes = service.backend.volumes()
    unknown = [path for path in reversed(mounted) if path not in known]
    return [path for path in unknown if mount_table.is_driver_mount(mounted[path], service.settings.root, volumes)]


def _detach(service: Service, record: VolumeRecord) -> None:
    service.backend.detach(record.id)


def _is_recorded(service: Service, entry: Entry) -> bool:
    record = service.records.volumes.find(entry.owner)
    if record is None or record.phase != "ready":
        return False
    if entry.kind == release.STAGING:
        return record.staging is not None and record.staging.path == entry.reference
    return entry.kind == release.EPHEMERAL or entry.reference in record.targets


def _release(service: Service, entry: Entry) -> None:
    service.log.warning("recovery", of=entry.owner, what=f"{entry.kind} {entry.reference} was not finished and is undone")
    release.release(service, entry)
    service.ledger.forget([entry])


def _paths(record: VolumeRecord) -> Iterator[str]:
    yield from record.targets
    if record.staging:
        yield record.staging.path


def _reconcile(service: Service, record: VolumeRecord, mounted: dict[str, Mount]) -> None:
    if record.ephemeral:
        _reconcile_ephemeral(service, record)
        return
    record = unstage.drop_vanished_targets(service, record)
    if record.staging is None:
        return
    if record.access == "block":
        stage.mount_staging(service, record, record.staging)
        return
    if record.staging.path not in mounted:
        _reset_staging(service, record)
    else:
        _unfreeze(service, record.staging.path)


def _reconcile_ephemeral(service: Service, record: VolumeRecord) -> None:
    """Its pod's directory tells whether the kubelet will still ask for it: to publish it again, or to unpublish it."""
    if record.phase == "ready" and any(_has_directory(service, path) for path in record.targets):
        return
    for path in record.targets:
        release.release(service, Entry(record.id, release.TARGET, path))
    release.release(service, Entry(record.id, release.EPHEMERAL, record.id))
    service.ledger.forget(service.ledger.held(record.id))


def _has_directory(service: Service, path: str) -> bool:
    try:
        with mount_point.open_mount_point(service.settings.kubelet_dir, path, "path"):
            return True
    except (NotFound, InvalidArgument):
        return False


def _reset_staging(service: Service, record: VolumeRecord) -> None:
    assert record.staging is not None
    service.log.warning("recovery", of=record.id, what=f"is no longer mounted at {record.staging.path}")
    entry = Entry(record.id, release.STAGING, record.staging.path)
    release.release(service, entry)
    service.records.volumes.update(record.id, lambda now: replace(now, staging=None))
    service.ledger.forget([entry])


def _unfreeze(service: Service, path: str) -> None:
    """Unfreeze what a driver that was killed left frozen."""
    with mount_point.open_mount_point(service.settings.kubelet_dir, path, "path") as point:
        if unfreeze(service, point):
            service.log.warning("recovery", of=path, what="was frozen")
