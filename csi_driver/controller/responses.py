"""Response messages of CSI, made from records."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.timestamp_pb2 import Timestamp

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.records.schema import GroupRecord, SnapshotRecord, VolumeRecord
from csi_driver.requests import topology


def volume_message(record: VolumeRecord, node_topology: Mapping[str, str]) -> csi.Volume:
    """The volume context stays empty: the id says all, and what the cluster keeps can be forged."""
    return csi.Volume(
        volume_id=record.id,
        capacity_bytes=record.size,
        content_source=_source(record),
        accessible_topology=topology.accessible_topology(node_topology),
    )


def snapshot_message(record: SnapshotRecord, node_topology: Mapping[str, str]) -> csi.Snapshot:
    return csi.Snapshot(
        snapshot_id=record.id,
        source_volume_id=record.volume_id,
        size_bytes=record.size,
        creation_time=_time(record.created),
        ready_to_use=True,
        group_snapshot_id=record.group_id,
        accessible_topology=topology.accessible_topology(node_topology),
    )


def group_message(
    record: GroupRecord, snapshots: list[SnapshotRecord], node_topology: Mapping[str, str]
) -> csi.VolumeGroupSnapshot:
    """The group with its `snapshots` as CSI's VolumeGroupSnapshot."""
    return csi.VolumeGroupSnapshot(
        group_snapshot_id=record.id,
        snapshots=[snapshot_message(item, node_topology) for item in snapshots],
        creation_time=_time(record.created),
        ready_to_use=True,
    )


def _source(record: VolumeRecord) -> csi.VolumeContentSource | None:
    if record.source_kind == "snapshot":
        return csi.VolumeContentSource(snapshot=csi.VolumeContentSource.SnapshotSource(snapshot_id=record.source_id))
    if record.source_kind == "volume":
        return csi.VolumeContentSource(volume=csi.VolumeContentSource.VolumeSource(volume_id=record.source_id))
    return None


def _time(nanoseconds: int) -> Timestamp:
    return Timestamp(seconds=nanoseconds // 1_000_000_000, nanos=nanoseconds % 1_000_000_000)
