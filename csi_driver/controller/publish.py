"""ControllerPublishVolume and ControllerUnpublishVolume: whether this node may use the volume."""

from __future__ import annotations

from dataclasses import replace

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.records.schema import VolumeRecord
from csi_driver.requests import fields, volume_capability
from csi_driver.service import Service
from runtime_core.errors import AlreadyExists, InvalidArgument, NotFound, ResourceExhausted
from runtime_core.serving.rpc_handler import Call


def controller_publish_volume(
    service: Service, request: csi.ControllerPublishVolumeRequest, call: Call
) -> csi.ControllerPublishVolumeResponse:
    fields.check_required(request.volume_id, "volume_id")
    fields.check_required(request.node_id, "node_id")
    if not request.HasField("volume_capability"):
        raise InvalidArgument("volume_capability: is missing")
    read_only = request.readonly or volume_capability.is_read_only(request.volume_capability)
    with service.locks.hold(request.volume_id):
        record = service.volume(request.volume_id)
        if request.node_id != service.node_id:
            raise NotFound(f"node_id: there is no node {request.node_id[:128]!r}: the volume is on {service.node_id!r} only")
        use = volume_capability.parse_capability(request.volume_capability, service.features)
        if reason := volume_capability.mismatch(use, record.access, record.fs_type):
            raise InvalidArgument(f"volume_capability: {reason}")
        _attach(service, record, read_only)
    return csi.ControllerPublishVolumeResponse()


def controller_unpublish_volume(
    service: Service, request: csi.ControllerUnpublishVolumeRequest, call: Call
) -> csi.ControllerUnpublishVolumeResponse:
    """A volume or a node that is not there is not published."""
    volume_id = fields.check_required(request.volume_id, "volume_id")
    with service.locks.hold(volume_id):
        record = service.records.volumes.find(volume_id)
        if record is not None and record.attached:
            left = {node: how for node, how in record.attached.items() if request.node_id not in ("", node)}
            service.records.volumes.update(volume_id, lambda present: replace(present, attached=left))
    return csi.ControllerUnpublishVolumeResponse()


def _attach(service: Service, record: VolumeRecord, read_only: bool) -> None:
    if service.node_id in record.attached:
        if record.attached[service.node_id] != read_only:
            how = "read-only" if record.attached[service.node_id] else "read-write"
            raise AlreadyExists(f"readonly: the volume is published to node {service.node_id!r} {how}")
        return
    with service.attaching:
        limit = service.settings.max_volumes
        if limit and sum(1 for other in service.records.volumes.all() if other.attached) >= limit:
            raise ResourceExhausted(f"node_id: node {service.node_id!r} has the {limit} volumes that it takes")
        attached = {**record.attached, service.node_id: read_only}
        service.records.volumes.update(record.id, lambda present: replace(present, attached=attached))
    # From here on data may be written: the volume has to be known after a power cut.
    service.store.flush()
