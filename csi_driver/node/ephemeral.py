"""Inline volumes of a pod's own: made when they are published, deleted when they are unpublished."""

from __future__ import annotations

import re
import time
from dataclasses import replace

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.node import group_ownership, lookup, mount_point, release, target_mount
from csi_driver.records.schema import Target, VolumeRecord
from csi_driver.requests import default_file_system, fields, volume_capability
from csi_driver.service import Service
from runtime_core.errors import AlreadyExists, FailedPrecondition, InvalidArgument
from runtime_core.kernel import failpoint
from runtime_core.store.ledger import Entry

_REQUESTED = "csi.storage.k8s.io/ephemeral"
_SIZE = "size"
_DEFAULT_SIZE = 1 << 30
#: Kubernetes' quantities, whole numbers of them
_QUANTITY = re.compile(r"([0-9]{1,18})(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P|)")
_FACTORS: dict[str, int] = {
    "": 1,
    **{unit + "i": 1 << 10 * n for n, unit in enumerate("KMGTP", 1)},
    **{u: 1000**n for n, u in enumerate("kMGTP", 1)},
}
#: the kubelet's ids: "csi-" and a SHA-256
_KUBELET_ID = re.compile(r"csi-[0-9a-f]{64}")


def is_requested(request: csi.NodePublishVolumeRequest) -> bool:
    return request.volume_context.get(_REQUESTED) == "true"


def was_deleted(service: Service, volume_id: str) -> bool:
    """Whether it is the id of an inline volume that is no more, and not that of a volume that never was."""
    return bool(_KUBELET_ID.fullmatch(volume_id)) and service.records.volumes.find(lookup.ephemeral_id(volume_id)) is None


def finish(service: Service, volume_id: str) -> None:
    """Delete what an error left half-made or half-deleted."""
    record = service.records.volumes.find(lookup.ephemeral_id(volume_id))
    if record is None or record.phase == "ready":
        return
    with service.locks.hold(record.id):
        delete(service, record.id)


def publish(service: Service, request: csi.NodePublishVolumeRequest, target: Target) -> None:
    path = mount_point.check_path(service.settings.kubelet_dir, request.target_path, "target_path")
    asked = _record(service, request)
    with service.locks.hold(asked.id):
        present = service.records.volumes.find(asked.id)
        if present is not None and present.phase != "ready":
            delete(service, asked.id)
            present = None
        if present is None:
            target_mount.check_free(service, "mount", path)
            with release.acquire(service, asked.id, release.EPHEMERAL, asked.id):
                _create(service, asked)
                _mount_target(service, replace(asked, phase="ready"), path, target)
            service.store.flush()  # what is written from here on is found again after a power cut
            return
        named = request.volume_capability.mount.fs_type
        if (present.size, present.parameters) != (asked.size, asked.parameters) or named not in ("", present.fs_type):
            raise AlreadyExists("volume_id: the volume is there with other attributes")
        if not target_mount.is_published(service, present, path, target):
            if path not in present.targets:
                raise FailedPrecondition("target_path: a volume of a pod's own has one target, and is published at another")
            _mount_target(service, present, path, target)


def _record(service: Service, request: csi.NodePublishVolumeRequest) -> VolumeRecord:
    """The volume that the request describes."""
    name = fields.check_name(request.volume_id, "volume_id")
    features = service.features
    use = volume_capability.parse_capability(request.volume_capability, features)
    if use.access == "block":
        raise InvalidArgument("volume_capability.block: a volume of a pod's own has a file system")
    given = fields.check_parameters(request.volume_context, features.parameters | {_SIZE}, "volume_context")
    required = _size(given.pop(_SIZE, ""))
    fs_type = use.fs_type or default_file_system.default_file_system(service.backend, required, 0)
    size = service.backend.round_size(required, 0, fs_type)
    return VolumeRecord(
        id=lookup.ephemeral_id(name), name=name, size=size, access="mount", fs_type=fs_type,
        parameters=given, created=time.time_ns(), ephemeral=True,
    )  # fmt: skip


def _size(text: str) -> int:
    if not text:
        return _DEFAULT_SIZE
    match = _QUANTITY.fullmatch(text)
    if match is None or not int(match[1]):
        raise InvalidArgument(f"volume_context: {_SIZE} {text[:32]!r} is not a size such as 64Mi")
    return int(match[1]) * _FACTORS[match[2]]


def _create(service: Service, record: VolumeRecord) -> None:
    service.backend.check(record.volume())
    service.records.volumes.put(record.id, record)
    failpoint.hit("csi.ephemeral.recorded")
    service.backend.create(record.volume(), None)
    failpoint.hit("csi.ephemeral.created")


def _mount_target(service: Service, record: VolumeRecord, path: str, target: Target) -> None:
    with release.acquire(service, record.id, release.TARGET, path):
        tree = service.backend.mount(record.volume(), target.flags, read_only=target.read_only)
        if target.mount_group and not target.read_only:
            group_ownership.apply_group(tree, target.mount_group)
        target_mount.attach(service, "mount", path, tree)
        failpoint.hit("csi.ephemeral.mounted")
        service.records.volumes.put(record.id, replace(record, targets={path: target}))
        failpoint.hit("csi.ephemeral.done")


def delete(service: Service, volume_id: str) -> None:
    """Nothing of it is left; what a crash interrupts, recovery ends by the row in the ledger."""
    service.records.volumes.update(volume_id, lambda now: replace(now, phase="deleting"))
    failpoint.hit("csi.ephemeral.deleting")
    entry = Entry(volume_id, release.EPHEMERAL, volume_id)
    release.release(service, entry)
    failpoint.hit("csi.ephemeral.deleted")
    service.ledger.forget([entry])
    service.node.forget(volume_id)
