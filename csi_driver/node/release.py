"""How what a node call took is given back, and the row in the ledger that stands for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from csi_driver.node import place
from csi_driver.node.thaw import thaw
from csi_driver.service import Service
from runtime_core.errors import FailedPrecondition, NotFound, TrivetError
from runtime_core.kernel import failpoint
from runtime_core.store.ledger import Entry

STAGING, TARGET, EPHEMERAL = "staging", "target", "ephemeral"
KINDS = (STAGING, TARGET, EPHEMERAL)


@contextmanager
def acquiring(service: Service, owner: str, kind: str, reference: str) -> Iterator[None]:
    """The ledger knows of it before it is there. When the block fails it is given back."""
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
    """Give it back. Idempotent."""
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
    """Take the last mount of a file system away from the directory `path`, in all mount namespaces. Idempotent."""
    try:
        with place.opened(service.settings.kubelet_dir, path, field) as there:
            if place.is_mounted(there):
                thaw(service, there)
            place.unmount(there)
            failpoint.hit("csi.release.unmounted")
            place.drop_copies(there)
    except NotFound:
        return  # the kubelet's directory around it is gone, and so is what was in it


def unmount_target(service: Service, path: str, field: str) -> None:
    """Take a mount away, and what was made for it. Idempotent; FailedPrecondition when what was made holds something now."""
    try:
        with place.opened(service.settings.kubelet_dir, path, field) as there:
            place.unmount(there)
            failpoint.hit("csi.release.target-unmounted")
            place.remove(there)
    except NotFound:
        return


def is_mounted(service: Service, path: str) -> bool:
    try:
        with place.opened(service.settings.kubelet_dir, path, "path") as there:
            return place.is_mounted(there)
    except NotFound:
        return False
