"""GetVolumeGroupSnapshot: one group."""

from __future__ import annotations

from collections.abc import Iterable

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.controller import responses
from csi_driver.records.schema import GroupRecord
from csi_driver.requests import fields
from csi_driver.service import Service
from runtime_core.errors import InvalidArgument, NotFound
from runtime_core.serving.rpc_handler import Call


def get_volume_group_snapshot(
    service: Service, request: csi.GetVolumeGroupSnapshotRequest, call: Call
) -> csi.GetVolumeGroupSnapshotResponse:
    group_id = fields.check_required(request.group_snapshot_id, "group_snapshot_id")
    group = service.records.groups.find(group_id)
    if group is None or group.phase != "ready":
        raise NotFound(f"group_snapshot_id: there is no group snapshot {group_id[:128]!r}")
    check_members(group, request.snapshot_ids)
    members = [service.snapshot(member) for member in group.snapshot_ids]
    return csi.GetVolumeGroupSnapshotResponse(group_snapshot=responses.group_message(group, members, service.topology()))


def check_members(group: GroupRecord, named: Iterable[str]) -> None:
    """InvalidArgument when the snapshots that the caller names are not the group's."""
    if set(named) != set(group.snapshot_ids):
        raise InvalidArgument(f"snapshot_ids: are not those of group snapshot {group.id}")
