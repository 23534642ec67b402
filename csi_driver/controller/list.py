"""ListVolumes and ControllerGetVolume: volumes and where they are published."""

from __future__ import annotations

from csi_driver import checks
from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.controller import answers
from csi_driver.node.health import look
from csi_driver.paging import page
from csi_driver.problems import condition
from csi_driver.records import VolumeRecord
from csi_driver.service import Service
from runtime_core.serving.gate import Call


def list_volumes(service: Service, request: csi.ListVolumesRequest, call: Call) -> csi.ListVolumesResponse:
    records, token = page(volumes(service), request.max_entries, request.starting_token)
    here = service.topology()
    return csi.ListVolumesResponse(
        entries=[
            csi.ListVolumesResponse.Entry(
                volume=answers.volume(record, here),
                status=csi.ListVolumesResponse.VolumeStatus(
                    published_node_ids=sorted(record.attached), volume_condition=condition(look(service, record))
                ),
            )
            for record in records
        ],
        next_token=token,
    )


def controller_get_volume(
    service: Service, request: csi.ControllerGetVolumeRequest, call: Call
) -> csi.ControllerGetVolumeResponse:
    record = service.volume(checks.given(request.volume_id, "volume_id"))
    return csi.ControllerGetVolumeResponse(
        volume=answers.volume(record, service.topology()),
        status=csi.ControllerGetVolumeResponse.VolumeStatus(
            published_node_ids=sorted(record.attached), volume_condition=condition(look(service, record))
        ),
    )


def volumes(service: Service) -> list[VolumeRecord]:
    """Those that the cluster knows: whole ones, and none that lives and dies with a pod."""
    return [record for record in service.records.volumes.all() if record.phase == "ready" and not record.ephemeral]
