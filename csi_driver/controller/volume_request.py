"""A CreateVolume request, parsed and checked; and how an existing volume differs from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.records.schema import VolumeRecord
from csi_driver.requests import fields, topology, volume_capability
from csi_driver.requests.volume_capability import VolumeUse
from runtime_core.errors import InvalidArgument, TrivetError
from runtime_core.interfaces.volume import Features


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeRequest:
    name: str
    use: VolumeUse
    #: bytes; 0 leaves an end open
    required: int
    limit: int
    parameters: Mapping[str, str]
    mutable_parameters: Mapping[str, str]
    #: "snapshot", "volume" or ""
    source_kind: str
    source_id: str
    accessibility: csi.TopologyRequirement | None


def parse_volume_request(request: csi.CreateVolumeRequest, features: Features) -> VolumeRequest:
    """InvalidArgument and OutOfRange name the field."""
    name = fields.check_name(request.name)
    if request.HasField("capacity_range"):
        fields.check_size_range(request.capacity_range.required_bytes, request.capacity_range.limit_bytes)
    kind, source_id = _source(request, features)
    return VolumeRequest(
        name=name,
        use=volume_capability.parse_capabilities(request.volume_capabilities, features),
        required=request.capacity_range.required_bytes,
        limit=request.capacity_range.limit_bytes,
        parameters=fields.check_parameters(request.parameters, features.parameters, "parameters"),
        mutable_parameters=fields.check_parameters(request.mutable_parameters, features.mutable_parameters, "mutable_parameters"),
        source_kind=kind,
        source_id=source_id,
        accessibility=request.accessibility_requirements if request.HasField("accessibility_requirements") else None,
    )


def difference(record: VolumeRecord, volume_request: VolumeRequest, node_topology: Mapping[str, str]) -> str:
    """Why `record` is not what is asked for; "" when it is."""
    if reason := volume_capability.mismatch(volume_request.use, record.access, record.fs_type):
        return reason
    if record.size < volume_request.required or (volume_request.limit and record.size > volume_request.limit):
        return f"it has {record.size} bytes"
    for field in ("parameters", "mutable_parameters"):
        if getattr(record, field) != getattr(volume_request, field):
            return f"with other {field}"
    if (record.source_kind, record.source_id) != (volume_request.source_kind, volume_request.source_id):
        return "with other content"
    return _topology_difference(volume_request, node_topology)


def _source(request: csi.CreateVolumeRequest, features: Features) -> tuple[str, str]:
    if not request.HasField("volume_content_source"):
        return "", ""
    source = request.volume_content_source
    kind = source.WhichOneof("type")
    if kind is None:
        raise InvalidArgument("volume_content_source.type: is missing")
    if not (features.snapshots if kind == "snapshot" else features.clones):
        raise InvalidArgument(f"volume_content_source.{kind}: this back end makes no volume from a {kind}")
    if kind == "snapshot":
        return kind, fields.check_required(source.snapshot.snapshot_id, "volume_content_source.snapshot.snapshot_id")
    return kind, fields.check_required(source.volume.volume_id, "volume_content_source.volume.volume_id")


def _topology_difference(volume_request: VolumeRequest, node_topology: Mapping[str, str]) -> str:
    if volume_request.accessibility is not None:
        try:
            topology.check_requirement(volume_request.accessibility, node_topology)
        except TrivetError as error:
            return str(error)
    return ""
