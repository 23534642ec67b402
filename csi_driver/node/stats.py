"""NodeGetVolumeStats: how full a volume is, and, as CSI 1.12 has it, its condition."""

from __future__ import annotations

from csi_driver import volume_health
from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.node import health, lookup, mount_point
from csi_driver.records.schema import VolumeRecord
from csi_driver.service import Service
from runtime_core.errors import InvalidArgument, NotFound
from runtime_core.interfaces.volume import Usage
from runtime_core.serving.rpc_handler import Call

#: problems with which the file system at the path is not the volume's, or does not answer
_UNREADABLE = ("NotMounted", "DeviceGone", "ImageMissing", "NotResponding")


def get_volume_stats(service: Service, request: csi.NodeGetVolumeStatsRequest, _call: Call) -> csi.NodeGetVolumeStatsResponse:
    for field in ("volume_id", "volume_path"):
        if not getattr(request, field):
            raise InvalidArgument(f"{field}: is missing")
    record = lookup.find_volume(service, request.volume_id)
    path = used_path(record, request.volume_path)
    found = health.inspect_volume(service, record)
    usage = None
    if not any(problem.reason in _UNREADABLE for problem in found):
        usage = service.node.bounded.run(f"use of {record.id}", lambda: _usage(service, record, path))
    return csi.NodeGetVolumeStatsResponse(usage=_answer(record, usage), volume_condition=volume_health.volume_condition(found))


def used_path(record: VolumeRecord, path: str) -> str:
    """The staging or target path that is meant; NotFound when the volume is not there."""
    plain = mount_point.normalize(path)
    if plain in record.targets or (record.staging and record.staging.path == plain):
        return plain
    raise NotFound(f"volume_path: the volume is not at {path[:256]!r}")


def _usage(service: Service, record: VolumeRecord, path: str) -> Usage:
    if record.access == "mount":
        return service.backend.usage(record.volume(), path)
    device = service.node.devices.get(record.id)
    return service.backend.usage(record.volume(), device) if device else Usage(record.size, 0, 0)


def _answer(record: VolumeRecord, usage: Usage | None) -> list[csi.VolumeUsage]:
    """Of a block device nobody knows what of it is used."""
    if usage is None:
        return []
    if record.access == "block":
        return [csi.VolumeUsage(unit=csi.VolumeUsage.BYTES, total=usage.total)]
    found = [csi.VolumeUsage(unit=csi.VolumeUsage.BYTES, total=usage.total, available=usage.available, used=usage.used)]
    if usage.inodes is not None:
        total, available, used = usage.inodes
        found.append(csi.VolumeUsage(unit=csi.VolumeUsage.INODES, total=total, available=available, used=used))
    return found
