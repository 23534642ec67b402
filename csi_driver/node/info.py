"""NodeGetCapabilities and NodeGetInfo."""

from __future__ import annotations

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.service import Service
from runtime_core.serving.rpc_handler import Call

_RPC = csi.NodeServiceCapability.RPC


def get_capabilities(service: Service, _request: csi.NodeGetCapabilitiesRequest, _call: Call) -> csi.NodeGetCapabilitiesResponse:
    return csi.NodeGetCapabilitiesResponse(
        capabilities=[csi.NodeServiceCapability(rpc=_RPC(type=name)) for name in service.capabilities.node]
    )


def get_info(service: Service, _request: csi.NodeGetInfoRequest, _call: Call) -> csi.NodeGetInfoResponse:
    return csi.NodeGetInfoResponse(
        node_id=service.node_id,
        max_volumes_per_node=service.settings.max_volumes,
        accessible_topology=csi.Topology(segments=service.topology()),
    )
