"""CreateVolumeGroupSnapshot: snapshots of all these volumes, one cut."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace

from csi_driver import checks, ids
from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.controller import answers
from csi_driver.controller.snapshot import making
from csi_driver.records import GroupRecord, SnapshotRecord, VolumeRecord
from csi_driver.releases import release
from csi_driver.service import Service
from runtime_core.errors import AlreadyExists, InvalidArgument
from runtime_core.kernel import failpoint
from runtime_core.serving.gate import Call


def create_volume_group_snapshot(
    service: Service, request: csi.CreateVolumeGroupSnapshotRequest, call: Call
) -> csi.CreateVolumeGroupSnapshotResponse:
    """A retry gets the same one."""
    name = checks.name(request.name)
    checks.parameters(request.parameters, frozenset(), "parameters")
    wanted = _volume_ids(request)
    with service.locks.hold(f"group named {name}"):
        group = _found(service, name, wanted)
        if group is None:
            with service.locks.hold(*wanted):
                volumes = [service.volume(one, f"source_volume_ids[{n}]") for n, one in enumerate(wanted)]
                group = _create(service, name, volumes)
    members = [service.snapshot(member) for member in group.snapshot_ids]
    return csi.CreateVolumeGroupSnapshotResponse(group_snapshot=answers.group(group, members, service.topology()))


def _volume_ids(request: csi.CreateVolumeGroupSnapshotRequest) -> list[str]:
    wanted = list(request.source_volume_ids)
    if not wanted:
        raise InvalidArgument("source_volume_ids: is missing")
    for number, one in enumerate(wanted):
        checks.given(one, f"source_volume_ids[{number}]")
        if one in wanted[:number]:
            raise InvalidArgument(f"source_volume_ids[{number}]: {one[:128]!r} is there twice")
    return wanted


def _found(service: Service, name: str, wanted: list[str]) -> GroupRecord | None:
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
    group_id = ids.new_group()
    members = [making(volume, name, group_id) for volume in volumes]
    group = GroupRecord(id=group_id, name=name, snapshot_ids=tuple(member.id for member in members))
    with service.locks.hold(group_id, *group.snapshot_ids), ExitStack() as undo:
        things = [("group", group_id), *(("snapshot", member.id) for member in members)]
        service.ledger.guard(undo, group_id, *things)
        service.records.groups.put(group_id, group)
        failpoint.hit("csi.group.recorded")
        cut = time.time_ns()
        service.backend.snapshot([(member.id, volume.volume()) for member, volume in zip(members, volumes, strict=True)])
        failpoint.hit("csi.group.made")
        group = _ready(service, group, members, cut)
        undo.pop_all()
    failpoint.hit("csi.group.ready")
    service.store.flush()
    return group


def _ready(service: Service, group: GroupRecord, members: list[SnapshotRecord], cut: int) -> GroupRecord:
    """The group last: it alone says that all are there."""
    for member in members:
        service.records.snapshots.put(member.id, replace(member, phase="ready", created=cut))
    failpoint.hit("csi.group.members")
    group = replace(group, phase="ready", created=cut)
    service.records.groups.put(group.id, group)
    return group
