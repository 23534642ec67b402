"""NodeStageVolume: mounts the volume on this node, once for all its pods."""

from __future__ import annotations

import os
from dataclasses import replace

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.node import group_ownership, lookup, mount_flags, mount_point, release
from csi_driver.records.schema import Staging, VolumeRecord
from csi_driver.requests import volume_capability
from csi_driver.service import Service
from runtime_core.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from runtime_core.kernel import failpoint
from runtime_core.serving.rpc_handler import Call

_PATH = "staging_target_path"


def stage_volume(service: Service, request: csi.NodeStageVolumeRequest, _call: Call) -> csi.NodeStageVolumeResponse:
    for field in ("volume_id", _PATH):
        if not getattr(request, field):
            raise InvalidArgument(f"{field}: is missing")
    capability = check_capability(service, request)
    volume_id = lookup.find_volume(service, request.volume_id).id
    with service.locks.hold(volume_id):
        record = lookup.find_volume(service, request.volume_id)
        if record.ephemeral:
            raise FailedPrecondition("volume_id: a volume of a pod's own is not staged")
        check_use(service, record, capability)
        lookup.check_attached(service, record)
        path = mount_point.check_path(service.settings.kubelet_dir, request.staging_target_path, _PATH)
        _stage(service, record, _requested_staging(service, record, path, capability))
    return csi.NodeStageVolumeResponse()


def check_capability(
    service: Service, request: csi.NodeStageVolumeRequest | csi.NodePublishVolumeRequest
) -> csi.VolumeCapability:
    """The request's capability, when the back end can serve it."""
    if not request.HasField("volume_capability"):
        raise InvalidArgument("volume_capability: is missing")
    volume_capability.parse_capability(request.volume_capability, service.features)
    return request.volume_capability


def check_use(service: Service, record: VolumeRecord, capability: csi.VolumeCapability) -> None:
    """FailedPrecondition when the volume is of another kind."""
    reason = volume_capability.mismatch(
        volume_capability.parse_capability(capability, service.features), record.access, record.fs_type
    )
    if reason:
        raise FailedPrecondition(f"volume_capability: {reason}")


def _requested_staging(service: Service, record: VolumeRecord, path: str, capability: csi.VolumeCapability) -> Staging:
    given = mount_flags.parse_flags(capability.mount.mount_flags, "volume_capability.mount.mount_flags")
    read_only = (
        volume_capability.is_read_only(capability)
        or mount_flags.is_read_only(given)
        or lookup.is_attached_read_only(service, record)
    )
    mount_group = group_ownership.parse_group(capability.mount.volume_mount_group, "volume_capability.mount.volume_mount_group")
    return Staging(path=path, flags=given, read_only=read_only, mount_group=mount_group)


def _stage(service: Service, record: VolumeRecord, wanted: Staging) -> None:
    present = record.staging
    if present and present.path != wanted.path:
        raise FailedPrecondition(f"{_PATH}: the volume is staged at {present.path} already")
    # Pods of two groups share a volume: a target's group counts, and is seen to when it is published.
    if present and present != replace(wanted, mount_group=present.mount_group):
        raise AlreadyExists(f"{_PATH}: the volume is staged there with another volume_capability")
    if present and is_staged(service, record):
        return
    _check_free(service, wanted.path)
    with service.node.changing(record.id):
        if present:
            mount_staging(service, record, present)
            return
        with release.acquire(service, record.id, release.STAGING, wanted.path):
            failpoint.hit("csi.stage.recorded")
            mount_staging(service, record, wanted)
            failpoint.hit("csi.stage.mounted")
            service.records.volumes.update(record.id, lambda now: replace(now, staging=wanted))
            failpoint.hit("csi.stage.done")


def _check_free(service: Service, path: str) -> None:
    """Check before anything is acquired, so that a rollback never removes what was there before."""
    try:
        with mount_point.open_mount_point(service.settings.kubelet_dir, path, _PATH) as point:
            os.close(mount_point.open_mounted(point, os.O_PATH | os.O_DIRECTORY))
            mount_point.check_free(point, "mount")
    except NotFound as error:
        raise FailedPrecondition(f"{_PATH}: the directory is missing") from error


def is_staged(service: Service, record: VolumeRecord) -> bool:
    """Whether the volume is still staged as its record says: a reboot or an umount may have undone it."""
    if record.access == "block":
        return False  # `device` attaches it where it is not, and says which one it is where it is
    return record.staging is not None and release.is_mounted(service, record.staging.path)


def mount_staging(service: Service, record: VolumeRecord, staging: Staging) -> None:
    """Mount the file system at the staging path, or attach the device."""
    if record.access == "block":
        service.node.devices[record.id] = service.backend.device(record.volume(), read_only=staging.read_only)
        return
    tree = service.backend.mount(record.volume(), staging.flags, read_only=staging.read_only)
    try:
        failpoint.hit("csi.stage.made")
        if staging.mount_group and not staging.read_only:
            group_ownership.apply_group(tree, staging.mount_group)
        with mount_point.open_mount_point(service.settings.kubelet_dir, staging.path, _PATH) as point:
            mount_point.attach(point, tree)
    finally:
        os.close(tree)
