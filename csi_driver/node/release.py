"""Acquires and releases what a node call needs, with its row in the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from csi_driver.node import mount_point
from csi_driver.node.unfreeze import unfreeze
from csi_driver.service import Service
from runtime_core.errors import FailedPrecondition, NotFound, TrivetError
from runtime_core.kernel import failpoint
from runtime_core.store.ledger import Entry

STAGING, TARGET, EPHEMERAL = "staging", "target", "ephemeral"
KINDS = (STAGING, TARGET, EPHEMERAL)


@contextmanager
def acquire(service: Service, owner: str, kind: str, reference: str) -> Iterator[None]:
    """Write the row of the ledger first; when the block fails, release the thing and delete the row."""
    entry = Entry(owner, kind, reference)
    service.ledger.acquire(owner, (kind, reference))
    with ExitStack() as undo:
        undo.callback(_undo, service, entry)
        yield
        undo.pop_all()


def _undo(service: Service, entry: Entry) -> None:
    try:
        release(service, entry)
    except (TrivetError, OSError) as error:  # the row stays: recovery goes on with it
        service.log.error("undo", volume=entry.owner, kind=entry.kind, path=entry.reference, error=str(error))
        return
    service.ledger.forget([entry])


def release(service: Service, entry: Entry) -> None:
    """Release what the row names. Idempotent."""
    if entry.kind == EPHEMERAL:
        service.backend.detach(entry.owner)
        service.backend.delete(entry.owner)
        service.records.volumes.delete(entry.owner)
        return
    if entry.kind == STAGING:
        unmount_last(service, entry.reference, entry.kind)
        service.backend.detach(entry.owner)
        return
    try:
        unmount_target(service, entry.reference, entry.kind)
    except FailedPrecondition as error:  # the directory was there before us; what was mounted on it is gone
        service.log.warning("undo", volume=entry.owner, kind=entry.kind, path=entry.reference, error=str(error))


def unmount_last(service: Service, path: str, field: str) -> None:
    """Unmount the last mount of a file system from `path`, in all mount namespaces. Idempotent."""
    try:
        with mount_point.open_mount_point(service.settings.kubelet_dir, path, field) as point:
            if mount_point.is_mounted(point):
                unfreeze(service, point)
            mount_point.unmount(point)
            failpoint.hit("csi.release.unmounted")
            mount_point.unmount_copies(point)
    except NotFound:
        return  # the kubelet's directory around it is gone, and so is what was in it


def unmount_target(service: Service, path: str, field: str) -> None:
    """Unmount, and remove the mount point, FailedPrecondition when it is not empty. Idempotent."""
    try:
        with mount_point.open_mount_point(service.settings.kubelet_dir, path, field) as point:
            mount_point.unmount(point)
            failpoint.hit("csi.release.target-unmounted")
            mount_point.remove(point)
    except NotFound:
        return


def is_mounted(service: Service, path: str) -> bool:
    try:
        with mount_point.open_mount_point(service.settings.kubelet_dir, path, "path") as point:
            return mount_point.is_mounted(point)
    except NotFound:
        return False
