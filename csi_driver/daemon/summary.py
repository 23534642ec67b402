"""A summary of all volumes and snapshots, for `trivet volumes` and metrics; CSI itself reports neither use nor targets."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import Struct

from csi_driver.node import lookup
from csi_driver.node.health import inspect_volume
from csi_driver.records.schema import SnapshotRecord, VolumeRecord
from csi_driver.service import Service
from runtime_core.errors import TrivetError
from runtime_core.serving.rpc_handler import Call, RpcHandler

#: a service of ours beside those of CSI: google.protobuf's messages say enough
NAME = "trivet.csi.v1.Overview"
_METHODS = [SimpleNamespace(name="List", input_type=Empty.DESCRIPTOR, output_type=Struct.DESCRIPTOR, server_streaming=False)]


def rpc_handler(service: Service) -> RpcHandler:
    descriptor = SimpleNamespace(full_name=NAME, methods=_METHODS)
    return RpcHandler(descriptor, GetMessageClass, {"List": _list}, service, service.log, service.timings)


def volume_summary(service: Service) -> dict[str, Any]:
    volumes = sorted(service.records.volumes.all(), key=lambda record: (record.created, record.id))
    snapshots = sorted(service.records.snapshots.all(), key=lambda record: (record.created, record.id))
    return {
        "driver": service.settings.driver_name,
        "node": service.node_id,
        "backend": service.settings.backend,
        "volumes": [_volume(service, record) for record in volumes],
        "snapshots": [_snapshot(record) for record in snapshots],
    }


def _list(service: Service, request: Empty, call: Call) -> Struct:
    answer = Struct()
    answer.update(volume_summary(service))
    return answer


def _volume(service: Service, record: VolumeRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "name": record.name,
        "size": record.size,
        "used": _used(service, record),
        "access": record.access,
        "fs_type": record.fs_type,
        "phase": record.phase,
        "ephemeral": record.ephemeral,
        "nodes": sorted(record.attached),
        "targets": sorted(record.targets),
        "problems": [f"{problem.reason}: {problem.message}" for problem in _problems(service, record)],
    }


def _snapshot(record: SnapshotRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "name": record.name,
        "volume": record.volume_id,
        "size": record.size,
        "group": record.group_id,
        "phase": record.phase,
        "created": record.created / 1e9,
    }


def _used(service: Service, record: VolumeRecord) -> int | None:
    """Bytes; None where nobody can say, as of a volume that is not mounted."""
    mounted = lookup.mounted_path(record)
    if not mounted:
        return None
    try:
        return service.backend.usage(record.volume(), mounted).used
    except (TrivetError, OSError):
        return None


def _problems(service: Service, record: VolumeRecord) -> list[Any]:
    return inspect_volume(service, record) if record.phase == "ready" else []
