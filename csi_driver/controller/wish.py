"""What a CreateVolume request asks for, checked; and how a volume that exists differs from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from csi_driver import access, checks, topology
from csi_driver.access import Use
from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.records import VolumeRecord
from runtime_core.errors import InvalidArgument, TrivetError
from runtime_core.interfaces.volume import Features


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    name: str
    use: Use
    #: bytes; 0 leaves an end open
    required: int
    limit: int
    parameters: Mapping[str, str]
    mutable_parameters: Mapping[str, str]
    #: "snapshot", "volume" or ""
    source_kind: str
    source_id: str
    accessibility: csi.TopologyRequirement | None


def wish_of(request: csi.CreateVolumeRequest, features: Features) -> Wish:
    """InvalidArgument and OutOfRange name the field."""
    name = checks.name(request.name)
    if request.HasField("capacity_range"):
        checks.size_range(request.capacity_range.required_bytes, request.capacity_range.limit_bytes)
    kind, source_id = _source(request, features)
    return Wish(
        name=name,
        use=access.use_of_all(request.volume_capabilities, features),
        required=request.capacity_range.required_bytes,
        limit=request.capacity_range.limit_bytes,
        parameters=checks.parameters(request.parameters, features.parameters, "parameters"),
        mutable_parameters=checks.parameters(request.mutable_parameters, features.mutable_parameters, "mutable_parameters"),
        source_kind=kind,
        source_id=source_id,
        accessibility=request.accessibility_requirements if request.HasField("accessibility_requirements") else None,
    )


def difference(record: VolumeRecord, wish: Wish, here: Mapping[str, str]) -> str:
    """Why `record` is not what is asked for; "" when it is."""
    if why := access.mismatch(wish.use, record.access, record.fs_type):
        return why
    if record.size < wish.required or (wish.limit and record.size > wish.limit):
        return f"it has {record.size} bytes"
    for field in ("parameters", "mutable_parameters"):
        if getattr(record, field) != getattr(wish, field):
            return f"with other {field}"
    if (record.source_kind, record.source_id) != (wish.source_kind, wish.source_id):
        return "with other content"
    return _elsewhere(wish, here)


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
        return kind, checks.given(source.snapshot.snapshot_id, "volume_content_source.snapshot.snapshot_id")
    return kind, checks.given(source.volume.volume_id, "volume_content_source.volume.volume_id")


def _elsewhere(wish: Wish, here: Mapping[str, str]) -> str:
    if wish.accessibility is not None:
        try:
            topology.check_requirement(wish.accessibility, here)
        except TrivetError as error:
            return str(error)
    return ""
