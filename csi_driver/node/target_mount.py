"""A publish target: a detached mount is attached at a pod's path, once."""

from __future__ import annotations

import os

from csi_driver.node import mount_point, release
from csi_driver.records.schema import Target, VolumeRecord
from csi_driver.service import Service
from runtime_core.errors import AlreadyExists, FailedPrecondition, NotFound
from runtime_core.interfaces.volume import Access
from runtime_core.kernel import failpoint

_PATH = "target_path"


def is_published(service: Service, record: VolumeRecord, path: str, target: Target) -> bool:
    """Whether it is published there already; AlreadyExists when it is so in another way."""
    present = record.targets.get(path)
    if present is None:
        return False
    if present != target:
        raise AlreadyExists(f"{_PATH}: the volume is published there with another volume_capability or readonly")
    return release.is_mounted(service, path)


def check_free(service: Service, kind: Access, path: str) -> None:
    """Check before anything is acquired, so that a rollback never removes what was there before."""
    try:
        with mount_point.open_mount_point(service.settings.kubelet_dir, path, _PATH) as point:
            mount_point.check_free(point, kind)
    except NotFound as error:
        raise FailedPrecondition(f"{_PATH}: the directory around it is missing") from error


def attach(service: Service, kind: Access, path: str, tree: int) -> None:
    """Attach the detached mount `tree`, which this closes, at `path`, made for it."""
    try:
        with mount_point.open_mount_point(service.settings.kubelet_dir, path, _PATH) as point:
            mount_point.create(point, kind)
            failpoint.hit("csi.publish.made")
            mount_point.attach(point, tree)
    finally:
        os.close(tree)
