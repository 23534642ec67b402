"""CreateVolume: a volume of this name, new or from a snapshot or volume; a retry gets the same one."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace

from csi_driver import file_system, ids, topology
from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.controller import answers
from csi_driver.controller.content import Content, resolve
from csi_driver.controller.wish import Wish, difference, wish_of
from csi_driver.records import VolumeRecord
from csi_driver.releases import release
from csi_driver.service import Service
from runtime_core.errors import AlreadyExists, OutOfRange
from runtime_core.kernel import failpoint
from runtime_core.serving.gate import Call

#: of a volume of which nobody says how large it shall be
_DEFAULT_SIZE = 1 << 30


def create_volume(service: Service, request: csi.CreateVolumeRequest, call: Call) -> csi.CreateVolumeResponse:
    wish = wish_of(request, service.features)
    with ExitStack() as held:
        held.enter_context(service.locks.hold(f"volume named {wish.name}"))
        found = _found(service, wish)
        if found is None:
            found = _create(service, wish, request, held)
    return csi.CreateVolumeResponse(volume=answers.volume(found, service.topology()))


def _found(service: Service, wish: Wish) -> VolumeRecord | None:
    """The volume of this name. What is left of one that was not finished goes, to be made anew."""
    for record in service.records.volumes.all():
        if record.name == wish.name and not record.ephemeral:
            if record.phase != "ready":
                with service.locks.hold(record.id):
                    release(service.ledger, record.id)
                continue
            if why := difference(record, wish, service.topology()):
                raise AlreadyExists(f"name: a volume {wish.name!r} exists already, but {why}")
            return record
    return None


def _create(service: Service, wish: Wish, request: csi.CreateVolumeRequest, held: ExitStack) -> VolumeRecord:
    if wish.accessibility is not None:
        topology.check_requirement(wish.accessibility, service.topology())
    content = resolve(service, wish, held)
    record = _record(service, wish, content)
    service.backend.check(record.volume())
    held.enter_context(service.locks.hold(record.id))
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
        service.store.soon()
    return record


def _record(service: Service, wish: Wish, content: Content | None) -> VolumeRecord:
    largest = service.backend.capacity().largest_volume
    default = content.size if content else min(_DEFAULT_SIZE, wish.limit or largest, largest)
    required = wish.required or default
    fs_type = wish.use.fs_type or (content.fs_type if content else "")
    if wish.use.access == "mount" and not fs_type:
        fs_type = file_system.unnamed(service.backend, required, wish.limit)
    size = service.backend.round_size(required, wish.limit, fs_type)
    _check_size(size, largest, content)
    return VolumeRecord(
        id=ids.new_volume(),
        name=wish.name,
        size=size,
        access=wish.use.access,
        fs_type=fs_type,
        parameters=wish.parameters,
        mutable_parameters=wish.mutable_parameters,
        source_kind=wish.source_kind,
        source_id=wish.source_id,
    )


def _check_size(size: int, largest: int, content: Content | None) -> None:
    if content and size < content.size:
        raise OutOfRange(f"capacity_range: the source has {content.size} bytes, which do not fit into {size}")
    if size > largest:
        raise OutOfRange(f"capacity_range: {size} bytes are more than the {largest} that a volume can have here")
