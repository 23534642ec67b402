"""GetMetadataAllocated and GetMetadataDelta: which bytes of a snapshot hold data, and which changed since another one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.records.schema import SnapshotRecord
from csi_driver.requests import fields
from csi_driver.service import Service
from runtime_core.errors import InvalidArgument, OutOfRange
from runtime_core.interfaces.volume import Extent
from runtime_core.serving.rpc_handler import Call

#: tuples in one message, where the caller does not say
_BATCH = 256


def get_metadata_allocated(
    service: Service, request: csi.GetMetadataAllocatedRequest, call: Call
) -> Iterator[csi.GetMetadataAllocatedResponse]:
    fields.check_required(request.snapshot_id, "snapshot_id")
    # The snapshot stays for as long as the stream is read.
    with service.locks.hold(shared=[request.snapshot_id]):
        snapshot = service.snapshot(request.snapshot_id)
        _check(snapshot, request.starting_offset, request.max_results)
        extents = service.backend.allocated(snapshot.id, request.starting_offset)
        for batch in _batches(extents, request.starting_offset, request.max_results):
            yield csi.GetMetadataAllocatedResponse(
                block_metadata_type=csi.VARIABLE_LENGTH, volume_capacity_bytes=snapshot.size, block_metadata=batch
            )


def get_metadata_delta(
    service: Service, request: csi.GetMetadataDeltaRequest, call: Call
) -> Iterator[csi.GetMetadataDeltaResponse]:
    fields.check_required(request.base_snapshot_id, "base_snapshot_id")
    fields.check_required(request.target_snapshot_id, "target_snapshot_id")
    with service.locks.hold(shared=[request.base_snapshot_id, request.target_snapshot_id]):
        base = service.snapshot(request.base_snapshot_id, "base_snapshot_id")
        target = service.snapshot(request.target_snapshot_id, "target_snapshot_id")
        if base.volume_id != target.volume_id:
            raise InvalidArgument("base_snapshot_id: is of another volume than target_snapshot_id")
        if base.created > target.created:
            raise InvalidArgument("base_snapshot_id: is younger than target_snapshot_id")
        _check(target, request.starting_offset, request.max_results)
        extents = service.backend.changed(base.id, target.id, request.starting_offset)
        for batch in _batches(extents, request.starting_offset, request.max_results):
            yield csi.GetMetadataDeltaResponse(
                block_metadata_type=csi.VARIABLE_LENGTH, volume_capacity_bytes=target.size, block_metadata=batch
            )


def _check(snapshot: SnapshotRecord, starting_offset: int, max_results: int) -> None:
    if not 0 <= starting_offset <= snapshot.size:
        raise OutOfRange(f"starting_offset: {starting_offset} is not within the {snapshot.size} bytes of the volume")
    if max_results < 0:
        raise InvalidArgument(f"max_results: {max_results} is negative")


def _batches(extents: Iterable[Extent], start: int, max_results: int) -> Iterator[list[csi.BlockMetadata]]:
    """At least one, which may be empty: it tells the volume's size."""
    tuples = (
        csi.BlockMetadata(
            byte_offset=max(start, extent.offset), size_bytes=extent.offset + extent.length - max(start, extent.offset)
        )
        for extent in extents
        if extent.length and extent.offset + extent.length > start
    )
    size = min(max_results or _BATCH, _BATCH)
    batch = list(islice(tuples, size))
    yield batch
    while len(batch) == size and (batch := list(islice(tuples, size))):
        yield batch
