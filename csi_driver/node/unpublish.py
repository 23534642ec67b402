"""NodeUnpublishVolume: unmounts the volume from a pod's path and removes the mount point."""

from __future__ import annotations

from dataclasses import replace

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.node import ephemeral, lookup, mount_point, release
from csi_driver.service import Service
from runtime_core.errors import InvalidArgument
from runtime_core.kernel import failpoint
from runtime_core.serving.rpc_handler import Call
from runtime_core.store.ledger import Entry


def unpublish_volume(service: Service, request: csi.NodeUnpublishVolumeRequest, _call: Call) -> csi.NodeUnpublishVolumeResponse:
    for field in ("volume_id", "target_path"):
        if not getattr(request, field):
            raise InvalidArgument(f"{field}: is missing")
    ephemeral.finish(service, request.volume_id)
    if ephemeral.was_deleted(service, request.volume_id):
        return csi.NodeUnpublishVolumeResponse()
    volume_id = lookup.find_volume(service, request.volume_id).id
    with service.locks.hold(volume_id):
        record = lookup.find_volume(service, request.volume_id)
        path = mount_point.check_path(service.settings.kubelet_dir, request.target_path, "target_path")
        if path in record.targets:
            if record.ephemeral:
                release.unmount_last(service, path, "target_path")
            _unpublish(service, record.id, path)
            if record.ephemeral:
                ephemeral.delete(service, record.id)
    return csi.NodeUnpublishVolumeResponse()


def _unpublish(service: Service, volume_id: str, path: str) -> None:
    with service.node.changing(volume_id):
        release.unmount_target(service, path, "target_path")
        failpoint.hit("csi.unpublish.unmounted")
        service.records.volumes.update(
            volume_id, lambda now: replace(now, targets={at: how for at, how in now.targets.items() if at != path})
        )
        failpoint.hit("csi.unpublish.recorded")
        service.ledger.forget([Entry(volume_id, release.TARGET, path)])
