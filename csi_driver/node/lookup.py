"""Looks up the volume of a node call, and whether this node may use it."""

from __future__ import annotations

import hashlib

from csi_driver.records.schema import VolumeRecord
from csi_driver.service import Service
from runtime_core.errors import FailedPrecondition, InvalidArgument, NotFound

_LONGEST_ID = 128


def find_volume(service: Service, volume_id: str) -> VolumeRecord:
    """By the id that we gave it, or, when it lives and dies with its pod, by the one that the kubelet gave it."""
    if not volume_id:
        raise InvalidArgument("volume_id: is missing")
    record = service.records.volumes.find(volume_id)
    if record is None or record.ephemeral:
        record = service.records.volumes.find(ephemeral_id(volume_id))
    if record is None or record.phase != "ready":
        raise NotFound(f"volume_id: the volume {volume_id[:_LONGEST_ID]!r} does not exist")
    return record


def ephemeral_id(kubelet_id: str) -> str:
    """Our own id for the kubelet's: no path and no record's key is ever made of a caller's text."""
    return "eph-" + hashlib.sha256(kubelet_id.encode(errors="surrogateescape")).hexdigest()[:32]


def check_attached(service: Service, record: VolumeRecord) -> None:
    if service.settings.attach and not record.ephemeral and service.node_id not in record.attached:
        raise FailedPrecondition(f"volume_id: the volume is not attached to the node {service.node_id}")


def is_attached_read_only(service: Service, record: VolumeRecord) -> bool:
    return service.settings.attach and record.attached.get(service.node_id, False)


def mounted_path(record: VolumeRecord) -> str:
    """Where its file system can be reached; "" where it is not mounted, or is a block device."""
    if record.access == "block":
        return ""
    if record.staging:
        return record.staging.path
    return next(iter(record.targets), "") if record.ephemeral else ""
