"""NodeUnstageVolume: unmounts the volume and detaches its device from this node."""

from __future__ import annotations

from dataclasses import replace

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.node import lookup, mount_point, release
from csi_driver.records.schema import VolumeRecord
from csi_driver.service import Service
from runtime_core.errors import FailedPrecondition, InvalidArgument
from runtime_core.kernel import failpoint
from runtime_core.serving.rpc_handler import Call
from runtime_core.store.ledger import Entry


def unstage_volume(service: Service, request: csi.NodeUnstageVolumeRequest, _call: Call) -> csi.NodeUnstageVolumeResponse:
    for field in ("volume_id", "staging_target_path"):
        if not getattr(request, field):
            raise InvalidArgument(f"{field}: is missing")
    volume_id = lookup.find_volume(service, request.volume_id).id
    with service.locks.hold(volume_id):
        record = lookup.find_volume(service, request.volume_id)
        path = mount_point.check_path(service.settings.kubelet_dir, request.staging_target_path, "staging_target_path")
        if record.staging is not None and record.staging.path == path:
            _unstage(service, drop_vanished_targets(service, record), path)
    return csi.NodeUnstageVolumeResponse()


def drop_vanished_targets(service: Service, record: VolumeRecord) -> VolumeRecord:
    """The record, when some of its targets are mounted no more: without them, and they are given back."""
    vanished = [path for path in record.targets if not release.is_mounted(service, path)]
    if not vanished:
        return record
    for path in vanished:
        release.release(service, Entry(record.id, release.TARGET, path))
    changed = service.records.volumes.update(
        record.id, lambda now: replace(now, targets={p: t for p, t in now.targets.items() if p not in vanished})
    )
    service.ledger.forget([Entry(record.id, release.TARGET, path) for path in vanished])
    return changed


def _unstage(service: Service, record: VolumeRecord, path: str) -> None:
    if record.targets:
        raise FailedPrecondition(f"volume_id: the volume is still published at {next(iter(record.targets))}")
    with service.node.changing(record.id):
        release.unmount_last(service, path, "staging_target_path")
        failpoint.hit("csi.unstage.unmounted")
        service.backend.detach(record.id)
        failpoint.hit("csi.unstage.detached")
        service.records.volumes.update(record.id, lambda now: replace(now, staging=None))
        failpoint.hit("csi.unstage.recorded")
        service.ledger.forget([Entry(record.id, release.STAGING, path)])
        service.node.forget(record.id)
