"""ControllerModifyVolume: change what may change after creation (VolumeAttributesClass)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.records.schema import VolumeRecord
from csi_driver.requests import fields
from csi_driver.service import Service
from runtime_core.errors import TrivetError
from runtime_core.kernel import failpoint
from runtime_core.serving.rpc_handler import Call


def controller_modify_volume(
    service: Service, request: csi.ControllerModifyVolumeRequest, call: Call
) -> csi.ControllerModifyVolumeResponse:
    """Keys that are not named keep their values, hence all where none is; nothing changes when one of them is wrong."""
    fields.check_required(request.volume_id, "volume_id")
    with service.locks.hold(request.volume_id):
        record = service.volume(request.volume_id)
        known = service.features.mutable_parameters
        changes = fields.check_parameters(request.mutable_parameters, known, "mutable_parameters")
        if changes:
            apply_changes(service, record, changes)
    return csi.ControllerModifyVolumeResponse()


def apply_changes(service: Service, record: VolumeRecord, changes: Mapping[str, str]) -> None:
    """Pass the changes to the back end; a retry, or the recovery, does so again."""
    volumes = service.records.volumes
    changed = {**record.mutable_parameters, **changes}
    volume = replace(record, mutable_parameters=changed).volume()
    service.backend.check(volume)
    volumes.update(record.id, lambda present: replace(present, changing_to=changed))
    failpoint.hit("csi.modify.recorded")
    try:
        service.backend.modify(volume)
    except (TrivetError, OSError):
        # Half of it may be done. Until it is undone the record says what it shall be: recovery goes on with that.
        volumes.update(record.id, lambda present: replace(present, changing_to=record.mutable_parameters))
        service.backend.modify(record.volume())
        volumes.update(record.id, lambda present: replace(present, changing_to=None))
        raise
    failpoint.hit("csi.modify.made")
    volumes.update(record.id, lambda present: replace(present, mutable_parameters=changed, changing_to=None))
    service.store.flush()
