"""DeleteVolume: the volume is gone, with its data."""

from __future__ import annotations

from dataclasses import replace

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.records import ids
from csi_driver.records.releases import release
from csi_driver.records.schema import VolumeRecord
from csi_driver.requests import fields
from csi_driver.service import Service
from runtime_core.errors import FailedPrecondition
from runtime_core.kernel import failpoint
from runtime_core.serving.rpc_handler import Call


def delete_volume(service: Service, request: csi.DeleteVolumeRequest, call: Call) -> csi.DeleteVolumeResponse:
    """An id that is not ours is of a volume that is not there. FailedPrecondition while it is used."""
    volume_id = fields.check_required(request.volume_id, "volume_id")
    if not ids.is_volume_id(volume_id):
        return csi.DeleteVolumeResponse()
    with service.locks.hold(volume_id):
        record = service.records.volumes.find(volume_id)
        if record is not None and not record.ephemeral:
            if reason := describe_use(record):
                raise FailedPrecondition(f"volume_id: {volume_id} {reason}")
            service.records.volumes.put(volume_id, replace(record, phase="deleting"))
            failpoint.hit("csi.delete.marked")
            release(service.ledger, volume_id)
            service.node.forget(volume_id)
            failpoint.hit("csi.delete.released")
            service.store.flush_soon()
    return csi.DeleteVolumeResponse()


def describe_use(record: VolumeRecord) -> str:
    """By whom; "" when by nobody."""
    if record.targets:
        return f"is published at {', '.join(sorted(record.targets))}"
    if record.staging is not None:
        return f"is staged at {record.staging.path}"
    if record.attached:
        return f"is published to node {', '.join(sorted(record.attached))}"
    return ""
