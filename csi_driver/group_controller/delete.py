"""DeleteVolumeGroupSnapshot: the group and its snapshots are gone."""

from __future__ import annotations

from dataclasses import replace

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.group_controller.get import check_members
from csi_driver.records import ids
from csi_driver.records.releases import release
from csi_driver.requests import fields
from csi_driver.service import Service
from runtime_core.kernel import failpoint
from runtime_core.serving.rpc_handler import Call


def delete_volume_group_snapshot(
    service: Service, request: csi.DeleteVolumeGroupSnapshotRequest, call: Call
) -> csi.DeleteVolumeGroupSnapshotResponse:
    group_id = fields.check_required(request.group_snapshot_id, "group_snapshot_id")
    group = service.records.groups.find(group_id) if ids.is_group_id(group_id) else None
    if group is None:
        return csi.DeleteVolumeGroupSnapshotResponse()
    check_members(group, request.snapshot_ids)
    with service.locks.hold(group_id, *group.snapshot_ids):
        group = service.records.groups.find(group_id)
        if group is not None:
            service.records.groups.put(group_id, replace(group, phase="deleting"))
            failpoint.hit("csi.group.delete.marked")
            release(service.ledger, group_id)
            service.store.flush_soon()
    return csi.DeleteVolumeGroupSnapshotResponse()
