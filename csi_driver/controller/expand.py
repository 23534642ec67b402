"""ControllerExpandVolume: a volume grows; the node may have to follow."""

from __future__ import annotations

from dataclasses import replace

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.controller.delete import describe_use
from csi_driver.records.schema import VolumeRecord
from csi_driver.requests import fields, volume_capability
from csi_driver.service import Service
from runtime_core.errors import FailedPrecondition, InvalidArgument, OutOfRange, TrivetError
from runtime_core.kernel import failpoint
from runtime_core.serving.rpc_handler import Call


def controller_expand_volume(
    service: Service, request: csi.ControllerExpandVolumeRequest, call: Call
) -> csi.ControllerExpandVolumeResponse:
    fields.check_required(request.volume_id, "volume_id")
    if not request.HasField("capacity_range"):
        raise InvalidArgument("capacity_range: is missing")
    fields.check_size_range(request.capacity_range.required_bytes, request.capacity_range.limit_bytes)
    with service.locks.hold(request.volume_id):
        record = service.volume(request.volume_id)
        if request.HasField("volume_capability"):
            use = volume_capability.parse_capability(request.volume_capability, service.features)
            if reason := volume_capability.mismatch(use, record.access, record.fs_type):
                raise InvalidArgument(f"volume_capability: {reason}")
        size = _target_size(service, record, request.capacity_range)
        if size > record.size and service.features.expansion == "offline" and (reason := describe_use(record)):
            raise FailedPrecondition(f"volume_id: {record.id} {reason}, and this back end grows volumes only offline")
        node_must_expand = grow(service, record, size)[1]
    return csi.ControllerExpandVolumeResponse(capacity_bytes=size, node_expansion_required=node_must_expand)


def grow(service: Service, record: VolumeRecord, size: int) -> tuple[VolumeRecord, bool]:
    """Let the back end grow it, also when a call before this one said so but did not end; the record after it, and
    whether the node has to follow.
    """
    volumes = service.records.volumes
    if size > record.size:
        volumes.update(record.id, lambda present: replace(present, growing_to=size))
        failpoint.hit("csi.expand.recorded")
    try:
        node_must_expand = service.backend.expand(replace(record, size=size).volume())
    except (TrivetError, OSError):
        volumes.update(record.id, lambda present: replace(present, growing_to=0))
        raise
    failpoint.hit("csi.expand.made")
    if size > record.size:
        record = volumes.update(record.id, lambda present: replace(present, size=size, growing_to=0))
        service.store.flush()
    return record, node_must_expand


def _target_size(service: Service, record: VolumeRecord, wanted: csi.CapacityRange) -> int:
    """The volume's own size when it is large enough already."""
    if wanted.limit_bytes and record.size > wanted.limit_bytes:
        raise OutOfRange(f"capacity_range.limit_bytes: the volume has {record.size} bytes and does not shrink")
    if wanted.required_bytes <= record.size:
        return record.size
    size = service.backend.round_size(wanted.required_bytes, wanted.limit_bytes, record.fs_type)
    largest = service.backend.capacity().largest_volume
    if size > largest:
        raise OutOfRange(f"capacity_range: {size} bytes are more than the {largest} that a volume can have here")
    return max(size, record.size)
