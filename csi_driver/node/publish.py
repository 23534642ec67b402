"""NodePublishVolume: mounts the volume at a pod's path."""

from __future__ import annotations

import os
import stat
from dataclasses import replace

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.node import ephemeral, group_ownership, lookup, mount_flags, mount_point, release, stage, target_mount
from csi_driver.records.schema import Target, VolumeRecord
from csi_driver.requests import volume_capability
from csi_driver.service import Service
from runtime_core.errors import FailedPrecondition, InvalidArgument
from runtime_core.kernel import failpoint, mounts, syscalls
from runtime_core.serving.rpc_handler import Call

_PATH = "target_path"
_FLAGS = "volume_capability.mount.mount_flags"
_SHARED = (
    volume_capability.Mode.SINGLE_NODE_MULTI_WRITER, volume_capability.Mode.MULTI_NODE_READER_ONLY,
    volume_capability.Mode.MULTI_NODE_SINGLE_WRITER, volume_capability.Mode.MULTI_NODE_MULTI_WRITER,
)  # fmt: skip


def publish_volume(service: Service, request: csi.NodePublishVolumeRequest, _call: Call) -> csi.NodePublishVolumeResponse:
    for field in ("volume_id", _PATH):
        if not getattr(request, field):
            raise InvalidArgument(f"{field}: is missing")
    capability = stage.check_capability(service, request)
    if ephemeral.is_requested(request):
        ephemeral.publish(service, request, requested_target(service, None, request))
        return csi.NodePublishVolumeResponse()
    volume_id = lookup.find_volume(service, request.volume_id).id
    with service.locks.hold(volume_id):
        record = lookup.find_volume(service, request.volume_id)
        stage.check_use(service, record, capability)
        lookup.check_attached(service, record)
        path = mount_point.check_path(service.settings.kubelet_dir, request.target_path, _PATH)
        _check_staged(service, record, request)
        _publish(service, record, path, requested_target(service, record, request))
    return csi.NodePublishVolumeResponse()


def requested_target(service: Service, record: VolumeRecord | None, request: csi.NodePublishVolumeRequest) -> Target:
    """The requested target as a record. `record`: None for a volume that does not exist yet."""
    capability = request.volume_capability
    given = mount_flags.parse_flags(capability.mount.mount_flags, _FLAGS)
    read_only = request.readonly or volume_capability.is_read_only(capability) or mount_flags.is_read_only(given)
    if record is not None and lookup.is_attached_read_only(service, record) and not read_only:
        raise FailedPrecondition("readonly: the volume is attached to this node for reading only")
    mount_group = group_ownership.parse_group(capability.mount.volume_mount_group, "volume_capability.mount.volume_mount_group")
    return Target(read_only=read_only, flags=given, access_mode=capability.access_mode.mode, mount_group=mount_group)


def _check_staged(service: Service, record: VolumeRecord, request: csi.NodePublishVolumeRequest) -> None:
    if not request.staging_target_path:
        raise FailedPrecondition("staging_target_path: is missing")
    path = mount_point.check_path(service.settings.kubelet_dir, request.staging_target_path, "staging_target_path")
    if record.staging is None or record.staging.path != path:
        raise FailedPrecondition("staging_target_path: the volume is not staged there")


def _publish(service: Service, record: VolumeRecord, path: str, target: Target) -> None:
    if target_mount.is_published(service, record, path, target):
        return
    _check_other_targets(record, path, target)
    assert record.staging is not None
    if record.staging.read_only and not target.read_only:
        raise FailedPrecondition("readonly: the volume is staged for reading only")
    if record.access == "mount" and not stage.is_staged(service, record):
        stage.mount_staging(service, record, record.staging)
    target_mount.check_free(service, record.access, path)
    with service.node.changing(record.id), release.acquire(service, record.id, release.TARGET, path):
        failpoint.hit("csi.publish.recorded")
        tree = (
            _mount_device_node(service, record, target)
            if record.access == "block"
            else _clone_staging_mount(service, record, target)
        )
        target_mount.attach(service, record.access, path, tree)
        failpoint.hit("csi.publish.mounted")
        service.records.volumes.update(record.id, lambda now: replace(now, targets={**now.targets, path: target}))
        failpoint.hit("csi.publish.done")


def _check_other_targets(record: VolumeRecord, path: str, target: Target) -> None:
    """CSI, NodePublishVolume, second table: who may have a second target."""
    others = [other for at, other in record.targets.items() if at != path]
    if others and any(published.access_mode not in _SHARED for published in [target, *others]):
        raise FailedPrecondition(f"{_PATH}: the access mode allows one target, and the volume is published at another")


def _clone_staging_mount(service: Service, record: VolumeRecord, target: Target) -> int:
    """A detached copy of the staging mount with the attributes of this target."""
    assert record.staging is not None
    to_set, to_clear = mount_flags.mount_attributes(target.flags, record.staging.flags, _FLAGS)
    with mount_point.open_mount_point(service.settings.kubelet_dir, record.staging.path, "staging_target_path") as point:
        mounted = mount_point.open_mounted(point, os.O_PATH | os.O_DIRECTORY)
    try:
        if target.mount_group and not target.read_only:
            group_ownership.apply_group(mounted, target.mount_group)
        tree = mounts.clone("", directory=mounted)
    finally:
        os.close(mounted)
    if target.read_only:
        to_set |= syscalls.MOUNT_ATTR_RDONLY
    syscalls.mount_setattr(tree, attr_set=to_set, attr_clr=to_clear, propagation=syscalls.MS_PRIVATE)
    return tree


def _mount_device_node(service: Service, record: VolumeRecord, target: Target) -> int:
    """A detached mount of the device's node. Reading only is the device's matter: a mount's attribute does not hold writers."""
    node = service.backend.device(record.volume(), read_only=target.read_only)
    if not stat.S_ISBLK(os.stat(node, follow_symlinks=False).st_mode):
        raise FailedPrecondition(f"{node} is not a block device")
    tree = mounts.clone(node)
    syscalls.mount_setattr(tree, propagation=syscalls.MS_PRIVATE)
    return tree
