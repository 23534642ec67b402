"""ContainerStats, ListContainerStats and its streaming variant: cgroup statistics and the writable layer's size."""

from __future__ import annotations

import time
from collections.abc import Iterator

from cri.api.v1 import api_pb2 as api
from cri.listing import has_labels, pages
from cri.service import Service
from runtime_core.errors import NotFound
from runtime_core.sandbox.records import ContainerRecord, State
from runtime_core.serving.rpc_handler import Call

_PAGE = 100


def container_stats(service: Service, request: api.ContainerStatsRequest, _call: Call) -> api.ContainerStatsResponse:
    """Of one container; NotFound for an unknown id."""
    record = service.node.container(request.container_id)
    return api.ContainerStatsResponse(stats=stats_of(service, record))


def list_container_stats(service: Service, request: api.ListContainerStatsRequest, _call: Call) -> api.ListContainerStatsResponse:
    """Of all running containers that fit the filter."""
    return api.ListContainerStatsResponse(stats=list(_query(service, request.filter)))


def stream_container_stats(
    service: Service, request: api.StreamContainerStatsRequest, _call: Call
) -> Iterator[api.StreamContainerStatsResponse]:
    """The same in pages."""
    found = list(_query(service, request.filter))
    for page in pages(found, _PAGE):
        yield api.StreamContainerStatsResponse(container_stats=page)


def _query(service: Service, wanted: api.ContainerStatsFilter) -> Iterator[api.ContainerStats]:
    for record in service.node.containers.all():
        if record.state != State.RUNNING:
            continue
        if not record.id.startswith(wanted.id) or not record.sandbox_id.startswith(wanted.pod_sandbox_id):
            continue
        if not has_labels(record.labels, wanted.label_selector):
            continue
        try:
            yield stats_of(service, record)
        except NotFound:
            continue  # it has ended since


def stats_of(service: Service, record: ContainerRecord) -> api.ContainerStats:
    """CPU in nanoseconds, memory in bytes, and the size of the writable layer."""
    usage = service.node.snapshotter.usage(record.id)
    now = time.time_ns()
    found = api.ContainerStats(
        attributes=api.ContainerAttributes(
            id=record.id,
            metadata=api.ContainerMetadata(**record.metadata),
            labels=record.labels,
            annotations=record.annotations,
        ),
        writable_layer=api.FilesystemUsage(
            timestamp=now,
            fs_id=api.FilesystemIdentifier(mountpoint=str(service.node.directories.root)),
            used_bytes=api.UInt64Value(value=usage.size_bytes),
            inodes_used=api.UInt64Value(value=usage.inodes),
        ),
    )
    if record.state == State.RUNNING:
        figures = service.node.cgroups.statistics(record.cgroup_path)
        found.cpu.CopyFrom(cpu(figures, now))
        found.memory.CopyFrom(memory(figures, now))
        found.swap.CopyFrom(
            api.SwapUsage(
                timestamp=now,
                swap_usage_bytes=_value(figures, "swap_usage"),
                swap_available_bytes=_value(figures, "swap_available"),
            )
        )
    return found


def cpu(figures: dict[str, int], now: int) -> api.CpuUsage:
    """CpuUsage of the cgroup's statistics; `now` in nanoseconds since the epoch."""
    return api.CpuUsage(timestamp=now, usage_core_nano_seconds=_value(figures, "cpu_usage_ns"))


def memory(figures: dict[str, int], now: int) -> api.MemoryUsage:
    """MemoryUsage of the cgroup's statistics, in bytes; `now` in nanoseconds since the epoch."""
    return api.MemoryUsage(
        timestamp=now,
        working_set_bytes=_value(figures, "memory_working_set"),
        available_bytes=_value(figures, "memory_available"),
        usage_bytes=_value(figures, "memory_usage"),
        rss_bytes=_value(figures, "memory_rss"),
        page_faults=_value(figures, "memory_page_faults"),
        major_page_faults=_value(figures, "memory_major_page_faults"),
    )


def _value(figures: dict[str, int], key: str) -> api.UInt64Value:
    return api.UInt64Value(value=figures.get(key, 0))
