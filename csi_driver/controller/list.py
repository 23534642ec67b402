"""ListVolumes and ControllerGetVolume: volumes and where they are published."""

from __future__ import annotations

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.controller import responses
from csi_driver.node.health import inspect_volume
from csi_driver.records.schema import VolumeRecord
from csi_driver.requests import fields
from csi_driver.requests.paging import page
from csi_driver.service import Service
from csi_driver.volume_health import volume_condition
from runtime_core.serving.rpc_handler import Call


def list_volumes(service: Service, request: csi.ListVolumesRequest, call: Call) -> csi.ListVolumesResponse:
    records, token = page(listed_volumes(service), request.max_entries, request.starting_token)
    node_topology = service.topology()
    return csi.ListVolumesResponse(
        entries=[
            csi.ListVolumesResponse.Entry(
                volume=responses.volume_message(record, node_topology),
                status=csi.ListVolumesResponse.VolumeStatus(
                    published_node_ids=sorted(record.attached), volume_condition=volume_condition(inspect_volume(service, record))
                ),
            )
            for record in records
        ],
        next_token=token,
    )


def controller_get_volume(
    service: Service, request: csi.ControllerGetVolumeRequest, call: Call
) -> csi.ControllerGetVolumeResponse:
    record = service.volume(fields.check_required(request.volume_id, "volume_id"))
    return csi.ControllerGetVolumeResponse(
        volume=responses.volume_message(record, service.topology()),
        status=csi.ControllerGetVolumeResponse.VolumeStatus(
            published_node_ids=sorted(record.attached), volume_condition=volume_condition(inspect_volume(service, record))
        ),
    )


def listed_volumes(service: Service) -> list[VolumeRecord]:
    """Those that the cluster knows: whole ones, and none that lives and dies with a pod."""
    return [record for record in service.records.volumes.all() if record.phase == "ready" and not record.ephemeral]
