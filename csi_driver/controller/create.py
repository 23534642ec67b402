"""CreateVolume: a volume of this name, new or from a snapshot or volume; a retry gets the same one."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.controller import responses
from csi_driver.controller.content_source import ContentSource, resolve_content_source
from csi_driver.controller.volume_request import VolumeRequest, difference, parse_volume_request
from csi_driver.records import ids
from csi_driver.records.releases import release
from csi_driver.records.schema import VolumeRecord
from csi_driver.requests import default_file_system, topology
from csi_driver.service import Service
from runtime_core.errors import AlreadyExists, OutOfRange
from runtime_core.kernel import failpoint
from runtime_core.serving.rpc_handler import Call

#: of a volume of which nobody says how large it shall be
_DEFAULT_SIZE = 1 << 30


def create_volume(service: Service, request: csi.CreateVolumeRequest, call: Call) -> csi.CreateVolumeResponse:
    volume_request = parse_volume_request(request, service.features)
    with ExitStack() as locks:
        locks.enter_context(service.locks.hold(f"volume named {volume_request.name}"))
        found = _find_existing(service, volume_request)
        if found is None:
            found = _create(service, volume_request, request, locks)
    return csi.CreateVolumeResponse(volume=responses.volume_message(found, service.topology()))


def _find_existing(service: Service, volume_request: VolumeRequest) -> VolumeRecord | None:
    """The volume of this name. An unfinished one is removed first, and made again."""
    for record in service.records.volumes.all():
        if record.name == volume_request.name and not record.ephemeral:
            if record.phase != "ready":
                with service.locks.hold(record.id):
                    release(service.ledger, record.id)
                continue
            if reason := difference(record, volume_request, service.topology()):
                raise AlreadyExists(f"name: a volume {volume_request.name!r} exists already, but {reason}")
            return record
    return None


def _create(service: Service, volume_request: VolumeRequest, request: csi.CreateVolumeRequest, locks: ExitStack) -> VolumeRecord:
    if volume_request.accessibility is not None:
        topology.check_requirement(volume_request.accessibility, service.topology())
    content = resolve_content_source(service, volume_request, locks)
    record = _new_record(service, volume_request, content)
    service.backend.check(record.volume())
    locks.enter_context(service.locks.hold(record.id))
    with ExitStack() as undo:
        service.ledger.guard(undo, record.id, ("volume", record.id))
        service.records.volumes.put(record.id, record)
        failpoint.hit("csi.create.recorded")
        service.backend.create(record.volume(), content.source if content else None)
        failpoint.hit("csi.create.made")
        record = replace(record, phase="ready", created=time.time_ns())
        service.records.volumes.put(record.id, record)
        undo.pop_all()
    failpoint.hit("csi.create.ready")
    if content:
        service.store.flush()
    else:
        service.store.flush_soon()
    return record


def _new_record(service: Service, volume_request: VolumeRequest, content: ContentSource | None) -> VolumeRecord:
    largest = service.backend.capacity().largest_volume
    default = content.size if content else min(_DEFAULT_SIZE, volume_request.limit or largest, largest)
    required = volume_request.required or default
    fs_type = volume_request.use.fs_type or (content.fs_type if content else "")
    if volume_request.use.access == "mount" and not fs_type:
        fs_type = default_file_system.default_file_system(service.backend, required, volume_request.limit)
    size = service.backend.round_size(required, volume_request.limit, fs_type)
    _check_size(size, largest, content)
    return VolumeRecord(
        id=ids.new_volume_id(),
        name=volume_request.name,
        size=size,
        access=volume_request.use.access,
        fs_type=fs_type,
        parameters=volume_request.parameters,
        mutable_parameters=volume_request.mutable_parameters,
        source_kind=volume_request.source_kind,
        source_id=volume_request.source_id,
    )


def _check_size(size: int, largest: int, content: ContentSource | None) -> None:
    if content and size < content.size:
        raise OutOfRange(f"capacity_range: the source has {content.size} bytes, which do not fit into {size}")
    if size > largest:
        raise OutOfRange(f"capacity_range: {size} bytes are more than the {largest} that a volume can have here")
