"""ValidateVolumeCapabilities: whether a volume can be used in the ways asked for."""

from __future__ import annotations

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.records.schema import VolumeRecord
from csi_driver.requests import fields, volume_capability
from csi_driver.service import Service
from runtime_core.errors import InvalidArgument
from runtime_core.serving.rpc_handler import Call

#: what its sidecars write into a volume's context
_OF_KUBERNETES = ("csi.storage.k8s.io/", "storage.kubernetes.io/")


def validate_volume_capabilities(
    service: Service, request: csi.ValidateVolumeCapabilitiesRequest, call: Call
) -> csi.ValidateVolumeCapabilitiesResponse:
    """Confirmed only when all of it holds; else a message says what does not."""
    fields.check_required(request.volume_id, "volume_id")
    if not request.volume_capabilities:
        raise InvalidArgument("volume_capabilities: is missing")
    record = service.volume(request.volume_id)
    if reason := _objection(service, record, request):
        return csi.ValidateVolumeCapabilitiesResponse(message=reason)
    confirmed = csi.ValidateVolumeCapabilitiesResponse.Confirmed(
        volume_context=request.volume_context,
        volume_capabilities=request.volume_capabilities,
        parameters=request.parameters,
        mutable_parameters=request.mutable_parameters,
    )
    return csi.ValidateVolumeCapabilitiesResponse(confirmed=confirmed)


def _objection(service: Service, record: VolumeRecord, request: csi.ValidateVolumeCapabilitiesRequest) -> str:
    features = service.features
    try:
        use = volume_capability.parse_capabilities(request.volume_capabilities, features)
        parameters = fields.check_parameters(request.parameters, features.parameters, "parameters")
        changeable = fields.check_parameters(request.mutable_parameters, features.mutable_parameters, "mutable_parameters")
    except InvalidArgument as error:
        return str(error)
    if any(not key.startswith(_OF_KUBERNETES) for key in request.volume_context):
        return "volume_context: volumes of this driver have none"
    if any(record.parameters.get(key) != value for key, value in parameters.items()):
        return "parameters: the volume has others"
    if any(record.mutable_parameters.get(key) != value for key, value in changeable.items()):
        return "mutable_parameters: the volume has others"
    return volume_capability.mismatch(use, record.access, record.fs_type)
