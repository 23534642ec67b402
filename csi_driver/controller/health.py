"""ControllerListVolumeHealth and ControllerGetVolumeHealth: what is wrong with volumes."""

from __future__ import annotations

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.controller.list import listed_volumes
from csi_driver.node.health import inspect_volume
from csi_driver.requests import fields
from csi_driver.requests.paging import page
from csi_driver.service import Service
from csi_driver.volume_health import volume_health
from runtime_core.serving.rpc_handler import Call


def controller_list_volume_health(
    service: Service, request: csi.ControllerListVolumeHealthRequest, call: Call
) -> csi.ControllerListVolumeHealthResponse:
    """Volumes with nothing wrong are left out."""
    found = {record.id: problems for record in listed_volumes(service) if (problems := inspect_volume(service, record))}
    unhealthy = [record for record in listed_volumes(service) if record.id in found]
    records, token = page(unhealthy, request.max_entries, request.starting_token)
    return csi.ControllerListVolumeHealthResponse(
        entries=[volume_health(record.id, found[record.id]) for record in records], next_token=token
    )


def controller_get_volume_health(
    service: Service, request: csi.ControllerGetVolumeHealthRequest, call: Call
) -> csi.ControllerGetVolumeHealthResponse:
    record = service.volume(fields.check_required(request.volume_id, "volume_id"))
    return csi.ControllerGetVolumeHealthResponse(volume_health=volume_health(record.id, inspect_volume(service, record)))
