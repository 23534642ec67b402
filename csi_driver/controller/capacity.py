"""GetCapacity: how much room is left for such volumes."""

from __future__ import annotations

from google.protobuf.wrappers_pb2 import Int64Value

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.requests import fields, topology, volume_capability
from csi_driver.service import Service
from runtime_core.errors import InvalidArgument
from runtime_core.serving.rpc_handler import Call


def get_capacity(service: Service, request: csi.GetCapacityRequest, call: Call) -> csi.GetCapacityResponse:
    """0 for volumes that cannot be made here; InvalidArgument for parameters that could not be given anywhere."""
    fields.check_parameters(request.parameters, service.features.parameters, "parameters")
    if request.HasField("accessible_topology") and not topology.includes_this_node(
        request.accessible_topology, service.topology()
    ):
        return csi.GetCapacityResponse(available_capacity=0)
    if request.volume_capabilities and not _can_serve(service, request):
        return csi.GetCapacityResponse(available_capacity=0)
    found = service.backend.capacity()
    return csi.GetCapacityResponse(
        available_capacity=found.available,
        maximum_volume_size=Int64Value(value=found.largest_volume),
        minimum_volume_size=Int64Value(value=found.smallest_volume),
    )


def _can_serve(service: Service, request: csi.GetCapacityRequest) -> bool:
    try:
        volume_capability.parse_capabilities(request.volume_capabilities, service.features)
    except InvalidArgument:
        return False
    return True
