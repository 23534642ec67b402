"""CreateSnapshot and DeleteSnapshot: the content of a volume at an instant, under a name."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.controller import responses
from csi_driver.records import ids
from csi_driver.records.releases import release
from csi_driver.records.schema import SnapshotRecord, VolumeRecord
from csi_driver.requests import fields, topology
from csi_driver.service import Service
from runtime_core.errors import AlreadyExists, InvalidArgument
from runtime_core.kernel import failpoint
from runtime_core.serving.rpc_handler import Call


def create_snapshot(service: Service, request: csi.CreateSnapshotRequest, call: Call) -> csi.CreateSnapshotResponse:
    """A retry gets the same one."""
    name = fields.check_name(request.name)
    fields.check_required(request.source_volume_id, "source_volume_id")
    fields.check_parameters(request.parameters, frozenset(), "parameters")
    with service.locks.hold(f"snapshot named {name}"):
        record = _find_existing(service, name, request.source_volume_id)
        if request.HasField("accessibility_requirements"):
            topology.check_requirement(request.accessibility_requirements, service.topology())
        if record is None:
            with service.locks.hold(request.source_volume_id):
                record = _create(service, name, service.volume(request.source_volume_id, "source_volume_id"))
    answer = responses.snapshot_message(record, service.topology())
    if topology.allows_only_this_node(request.accessibility_requirements, service.topology()):
        answer.ClearField("accessible_topology")  # optional, and who has named this one place knows it
    return csi.CreateSnapshotResponse(snapshot=answer)


def delete_snapshot(service: Service, request: csi.DeleteSnapshotRequest, call: Call) -> csi.DeleteSnapshotResponse:
    snapshot_id = fields.check_required(request.snapshot_id, "snapshot_id")
    if not ids.is_snapshot_id(snapshot_id):
        return csi.DeleteSnapshotResponse()
    with service.locks.hold(snapshot_id):
        record = service.records.snapshots.find(snapshot_id)
        if record is not None:
            if record.group_id:
                raise InvalidArgument(f"snapshot_id: {snapshot_id} goes with its group {record.group_id} only")
            service.records.snapshots.put(snapshot_id, replace(record, phase="deleting"))
            failpoint.hit("csi.snapshot.delete.marked")
            release(service.ledger, snapshot_id)
            service.store.flush_soon()
    return csi.DeleteSnapshotResponse()


def new_snapshot_record(volume: VolumeRecord, name: str, group_id: str = "") -> SnapshotRecord:
    """The record, in the phase "making", of a snapshot that is about to be made."""
    return SnapshotRecord(
        id=ids.new_snapshot_id(),
        name=name,
        volume_id=volume.id,
        size=volume.size,
        access=volume.access,
        fs_type=volume.fs_type,
        parameters={**volume.parameters, **volume.mutable_parameters},
        group_id=group_id,
    )


def _find_existing(service: Service, name: str, volume_id: str) -> SnapshotRecord | None:
    for record in service.records.snapshots.all():
        if record.name == name and not record.group_id:
            if record.phase != "ready":
                with service.locks.hold(record.id):
                    release(service.ledger, record.id)
                continue
            if record.volume_id != volume_id:
                raise AlreadyExists(f"name: a snapshot {name!r} exists already, of volume {record.volume_id}")
            return record
    return None


def _create(service: Service, name: str, volume: VolumeRecord) -> SnapshotRecord:
    record = new_snapshot_record(volume, name)
    with service.locks.hold(record.id), ExitStack() as undo:
        service.ledger.guard(undo, record.id, ("snapshot", record.id))
        service.records.snapshots.put(record.id, record)
        failpoint.hit("csi.snapshot.recorded")
        created = time.time_ns()
        service.backend.snapshot([(record.id, volume.volume())])
        failpoint.hit("csi.snapshot.made")
        record = replace(record, phase="ready", created=created)
        service.records.snapshots.put(record.id, record)
        undo.pop_all()
    failpoint.hit("csi.snapshot.ready")
    service.store.flush()
    return record
