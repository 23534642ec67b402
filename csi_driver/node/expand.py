"""NodeExpandVolume: device and file system fill the size that the controller has given the volume."""

from __future__ import annotations

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.node import lookup, stats
from csi_driver.records.schema import VolumeRecord
from csi_driver.requests import fields, volume_capability
from csi_driver.service import Service
from runtime_core.errors import InvalidArgument, OutOfRange
from runtime_core.kernel import failpoint
from runtime_core.serving.rpc_handler import Call


def expand_volume(service: Service, request: csi.NodeExpandVolumeRequest, _call: Call) -> csi.NodeExpandVolumeResponse:
    for field in ("volume_id", "volume_path"):
        if not getattr(request, field):
            raise InvalidArgument(f"{field}: is missing")
    volume_id = lookup.find_volume(service, request.volume_id).id
    with service.locks.hold(volume_id):
        record = lookup.find_volume(service, request.volume_id)
        _check(service, record, request)
        path = stats.used_path(record, request.volume_path)
        failpoint.hit("csi.node-expand.begun")
        service.backend.grow(record.volume(), path if record.access == "mount" else "")
        failpoint.hit("csi.node-expand.done")
    return csi.NodeExpandVolumeResponse(capacity_bytes=record.size)


def _check(service: Service, record: VolumeRecord, request: csi.NodeExpandVolumeRequest) -> None:
    if request.HasField("volume_capability"):
        reason = volume_capability.mismatch(
            volume_capability.parse_capability(request.volume_capability, service.features), record.access, record.fs_type
        )
        if reason:
            raise InvalidArgument(f"volume_capability: {reason}")
    if request.HasField("capacity_range"):
        required, limit = request.capacity_range.required_bytes, request.capacity_range.limit_bytes
        fields.check_size_range(required, limit)
        if required > record.size:
            raise OutOfRange(f"capacity_range.required_bytes: the volume has been expanded to {record.size} bytes only")
