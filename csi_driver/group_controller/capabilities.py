"""GroupControllerGetCapabilities: what of this service is there."""

from __future__ import annotations

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.service import Service
from runtime_core.serving.rpc_handler import Call

_RPC = csi.GroupControllerServiceCapability.RPC


def group_controller_get_capabilities(
    service: Service, request: csi.GroupControllerGetCapabilitiesRequest, call: Call
) -> csi.GroupControllerGetCapabilitiesResponse:
    names = service.capabilities.group_controller
    return csi.GroupControllerGetCapabilitiesResponse(
        capabilities=[csi.GroupControllerServiceCapability(rpc=_RPC(type=name)) for name in names]
    )
