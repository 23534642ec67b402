"""NodeGetVolumeHealth and NodeGetStorageHealth: what is wrong here, of one volume and of what all of them lie on."""

from __future__ import annotations

import os

from csi_driver import volume_health
from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.node import lookup, mount_table
from csi_driver.records.schema import VolumeRecord
from csi_driver.service import Service
from runtime_core.errors import DeadlineExceeded, TrivetError, from_oserror
from runtime_core.interfaces.volume import Problem
from runtime_core.serving.rpc_handler import Call

_Health = csi.NodeGetStorageHealthResponse.StorageBackendHealth


def get_volume_health(service: Service, request: csi.NodeGetVolumeHealthRequest, _call: Call) -> csi.NodeGetVolumeHealthResponse:
    record = lookup.find_volume(service, request.volume_id)
    return csi.NodeGetVolumeHealthResponse(
        volume_health=volume_health.volume_health(request.volume_id, inspect_volume(service, record))
    )


def inspect_volume(service: Service, record: VolumeRecord) -> list[Problem]:
    """What is wrong with the volume now; remembered. Does not wait for a file system that hangs."""
    before = service.node.changes(record.id)
    record = service.records.volumes.get(record.id)
    try:
        found = service.node.bounded.run(f"health of {record.id}", lambda: _problems(service, record))
    except DeadlineExceeded as error:
        found = [Problem("NotResponding", str(error))]
    if before == -1 or service.node.changes(record.id) != before:
        return list(service.node.problems(record.id))  # it was seen half-mounted
    if service.node.update_problems(record.id, found):
        for problem in found:
            service.log.warning("problem", volume=record.id, reason=problem.reason, message=problem.message)
    return found


def _problems(service: Service, record: VolumeRecord) -> list[Problem]:
    where = service.node.devices.get(record.id, "") if record.access == "block" else lookup.mounted_path(record)
    found = list(service.backend.problems(record.volume(), where))
    places = [*record.targets, *([record.staging.path] if record.staging and record.access == "mount" else [])]
    # By the table alone: who opens a mount makes it busy for who wants to unmount it.
    mounted = mount_table.mounts_below(service.settings.kubelet_dir) if places else {}
    gone = [path for path in places if path not in mounted]
    if gone and not any(problem.reason == "NotMounted" for problem in found):
        found.append(Problem("NotMounted", f"the volume is no longer mounted at {gone[0]}"))
    return found


def get_storage_health(
    service: Service, _request: csi.NodeGetStorageHealthRequest, _call: Call
) -> csi.NodeGetStorageHealthResponse:
    return csi.NodeGetStorageHealthResponse(backend_health=_storage(service))


def _storage(service: Service) -> list[csi.NodeGetStorageHealthResponse.StorageBackendHealth]:
    root = str(service.settings.root)
    try:
        flags = service.node.bounded.run("storage", lambda: os.statvfs(root).f_flag)
        capacity = service.node.bounded.run("capacity", service.backend.capacity)
    except DeadlineExceeded as error:
        return [_Health(status=csi.STORAGE_UNREACHABLE, reason="Hanging", message=str(error))]
    except (TrivetError, OSError) as error:
        said = error if isinstance(error, TrivetError) else from_oserror(error, root)
        return [_Health(status=csi.STORAGE_UNREACHABLE, reason="Unreadable", message=str(said))]
    found = []
    if flags & os.ST_RDONLY:
        found.append(_Health(status=csi.STORAGE_DEGRADED, reason="ReadOnly", message=f"the file system of {root} is read-only"))
    if capacity.available < capacity.smallest_volume:
        message = f"{capacity.available} of {capacity.total} bytes are free, a volume needs {capacity.smallest_volume}"
        found.append(_Health(status=csi.STORAGE_DEGRADED, reason="Full", message=message))
    return found
