"""ControllerGetCapabilities: what of this service is there."""

from __future__ import annotations

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.service import Service
from runtime_core.serving.rpc_handler import Call

_RPC = csi.ControllerServiceCapability.RPC


def controller_get_capabilities(
    service: Service, request: csi.ControllerGetCapabilitiesRequest, call: Call
) -> csi.ControllerGetCapabilitiesResponse:
    names = service.capabilities.controller
    return csi.ControllerGetCapabilitiesResponse(
        capabilities=[csi.ControllerServiceCapability(rpc=_RPC(type=name)) for name in names]
    )
