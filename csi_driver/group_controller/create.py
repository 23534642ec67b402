"""CreateVolumeGroupSnapshot: snapshots of several volumes at one instant."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.controller import responses
from csi_driver.controller.snapshot import new_snapshot_record
from csi_driver.records import ids
from csi_driver.records.releases import release
from csi_driver.records.schema import GroupRecord, SnapshotRecord, VolumeRecord
from csi_driver.requests import fields
from csi_driver.service import Service
from runtime_core.errors import AlreadyExists, InvalidArgument
from runtime_core.kernel import failpoint
from runtime_core.serving.rpc_handler import Call


def create_volume_group_snapshot(
    service: Service, request: csi.CreateVolumeGroupSnapshotRequest, call: Call
) -> csi.CreateVolumeGroupSnapshotResponse:
    """A retry gets the same one."""
    name = fields.check_name(request.name)
    fields.check_parameters(request.parameters, frozenset(), "parameters")
    wanted = _volume_ids(request)
    with service.locks.hold(f"group named {name}"):
        group = _find_existing(service, name, wanted)
        if group is None:
            with service.locks.hold(*wanted):
                volumes = [service.volume(volume_id, f"source_volume_ids[{n}]") for n, volume_id in enumerate(wanted)]
                group = _create(service, name, volumes)
    members = [service.snapshot(member) for member in group.snapshot_ids]
    return csi.CreateVolumeGroupSnapshotResponse(group_snapshot=responses.group_message(group, members, service.topology()))


def _volume_ids(request: csi.CreateVolumeGroupSnapshotRequest) -> list[str]:
    wanted = list(request.source_volume_ids)
    if not wanted:
        raise InvalidArgument("source_volume_ids: is missing")
    for number, volume_id in enumerate(wanted):
        fields.check_required(volume_id, f"source_volume_ids[{number}]")
        if volume_id in wanted[:number]:
            raise InvalidArgument(f"source_volume_ids[{number}]: {volume_id[:128]!r} is there twice")
    return wanted


def _find_existing(service: Service, name: str, wanted: list[str]) -> GroupRecord | None:
    for group in service.records.groups.all():
        if group.name != name:
            continue
        if group.phase != "ready":
            with service.locks.hold(group.id):
                release(service.ledger, group.id)
            continue
        if {service.snapshot(member).volume_id for member in group.snapshot_ids} != set(wanted):
            raise AlreadyExists(f"name: a group snapshot {name!r} exists already, of other volumes")
        return group
    return None


def _create(service: Service, name: str, volumes: list[VolumeRecord]) -> GroupRecord:
    group_id = ids.new_group_id()
    members = [new_snapshot_record(volume, name, group_id) for volume in volumes]
    group = GroupRecord(id=group_id, name=name, snapshot_ids=tuple(member.id for member in members))
    with service.locks.hold(group_id, *group.snapshot_ids), ExitStack() as undo:
        acquired = [("group", group_id), *(("snapshot", member.id) for member in members)]
        service.ledger.guard(undo, group_id, *acquired)
        service.records.groups.put(group_id, group)
        failpoint.hit("csi.group.recorded")
        created = time.time_ns()
        service.backend.snapshot([(member.id, volume.volume()) for member, volume in zip(members, volumes, strict=True)])
        failpoint.hit("csi.group.made")
        group = _mark_ready(service, group, members, created)
        undo.pop_all()
    failpoint.hit("csi.group.ready")
    service.store.flush()
    return group


def _mark_ready(service: Service, group: GroupRecord, members: list[SnapshotRecord], created: int) -> GroupRecord:
    """The group last: it alone says that all are there."""
    for member in members:
        service.records.snapshots.put(member.id, replace(member, phase="ready", created=created))
    failpoint.hit("csi.group.members")
    group = replace(group, phase="ready", created=created)
    service.records.groups.put(group.id, group)
    return group
