"""ListSnapshots and GetSnapshot: snapshots of one volume or all."""

from __future__ import annotations

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.controller import responses
from csi_driver.records.schema import SnapshotRecord
from csi_driver.requests import fields
from csi_driver.requests.paging import page
from csi_driver.service import Service
from runtime_core.serving.rpc_handler import Call


def list_snapshots(service: Service, request: csi.ListSnapshotsRequest, call: Call) -> csi.ListSnapshotsResponse:
    """An id that is not there filters everything away."""
    found = [record for record in service.records.snapshots.all() if _is_wanted(record, request)]
    records, token = page(found, request.max_entries, request.starting_token)
    node_topology = service.topology()
    return csi.ListSnapshotsResponse(
        entries=[
            csi.ListSnapshotsResponse.Entry(snapshot=responses.snapshot_message(record, node_topology)) for record in records
        ],
        next_token=token,
    )


def get_snapshot(service: Service, request: csi.GetSnapshotRequest, call: Call) -> csi.GetSnapshotResponse:
    record = service.snapshot(fields.check_required(request.snapshot_id, "snapshot_id"))
    return csi.GetSnapshotResponse(snapshot=responses.snapshot_message(record, service.topology()))


def _is_wanted(record: SnapshotRecord, request: csi.ListSnapshotsRequest) -> bool:
    return (
        record.phase == "ready" and request.snapshot_id in ("", record.id) and request.source_volume_id in ("", record.volume_id)
    )
