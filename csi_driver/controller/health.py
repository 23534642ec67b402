"""ControllerListVolumeHealth and ControllerGetVolumeHealth: what is wrong with volumes."""

from __future__ import annotations

from csi_driver import checks
from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.controller.list import volumes
from csi_driver.node.health import look
from csi_driver.paging import page
from csi_driver.problems import health
from csi_driver.service import Service
from runtime_core.serving.gate import Call


def controller_list_volume_health(
    service: Service, request: csi.ControllerListVolumeHealthRequest, call: Call
) -> csi.ControllerListVolumeHealthResponse:
    """Volumes with nothing wrong are left out."""
    found = {record.id: problems for record in volumes(service) if (problems := look(service, record))}
    ill = [record for record in volumes(service) if record.id in found]
    records, token = page(ill, request.max_entries, request.starting_token)
    return csi.ControllerListVolumeHealthResponse(
        entries=[health(record.id, found[record.id]) for record in records], next_token=token
    )


def controller_get_volume_health(
    service: Service, request: csi.ControllerGetVolumeHealthRequest, call: Call
) -> csi.ControllerGetVolumeHealthResponse:
    record = service.volume(checks.given(request.volume_id, "volume_id"))
    return csi.ControllerGetVolumeHealthResponse(volume_health=health(record.id, look(service, record)))
