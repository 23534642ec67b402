"""PodSandboxStats, ListPodSandboxStats and its streaming variant."""

from __future__ import annotations

import time
from collections.abc import Iterator

from cri.api.v1 import api_pb2 as api
from cri.container import stats as container_stats
from cri.listing import has_labels, pages
from cri.service import Service
from cri.translate import status
from runtime_core.errors import NotFound
from runtime_core.sandbox.records import SandboxRecord, State
from runtime_core.serving.rpc_handler import Call

_PAGE = 50
_DEFAULT_INTERFACE = "eth0"


def pod_sandbox_stats(service: Service, request: api.PodSandboxStatsRequest, _call: Call) -> api.PodSandboxStatsResponse:
    """Of one pod; NotFound for an unknown id."""
    return api.PodSandboxStatsResponse(stats=_stats(service, service.node.sandbox(request.pod_sandbox_id)))


def list_pod_sandbox_stats(
    service: Service, request: api.ListPodSandboxStatsRequest, _call: Call
) -> api.ListPodSandboxStatsResponse:
    """Of all pods that fit the filter."""
    return api.ListPodSandboxStatsResponse(stats=list(_query(service, request.filter)))


def stream_pod_sandbox_stats(
    service: Service, request: api.StreamPodSandboxStatsRequest, _call: Call
) -> Iterator[api.StreamPodSandboxStatsResponse]:
    """The same in pages."""
    found = list(_query(service, request.filter))
    for page in pages(found, _PAGE):
        yield api.StreamPodSandboxStatsResponse(pod_sandbox_stats=page)


def _query(service: Service, wanted: api.PodSandboxStatsFilter) -> Iterator[api.PodSandboxStats]:
    for record in service.node.sandboxes.all():
        if not record.is_ready or not record.spec.id.startswith(wanted.id):
            continue
        if not has_labels(record.spec.labels, wanted.label_selector):
            continue
        yield _stats(service, record)


def _stats(service: Service, record: SandboxRecord) -> api.PodSandboxStats:
    now = time.time_ns()
    containers = []
    pids = 0
    for container in service.node.containers_of(record.spec.id):
        if container.state == State.RUNNING:
            try:
                containers.append(container_stats.stats_of(service, container))
                pids += len(service.node.cgroups.processes(container.cgroup_path))
            except NotFound:
                continue  # it has ended since
    try:
        figures = service.node.cgroups.statistics(record.spec.cgroup_parent)
    except NotFound:
        figures = {}
    return api.PodSandboxStats(
        attributes=api.PodSandboxAttributes(
            id=record.spec.id,
            metadata=status.sandbox_metadata(record),
            labels=record.spec.labels,
            annotations=record.spec.annotations,
        ),
        linux=api.LinuxPodSandboxStats(
            cpu=container_stats.cpu(figures, now),
            memory=container_stats.memory(figures, now),
            network=_network(record, now),
            process=api.ProcessUsage(timestamp=now, process_count=api.UInt64Value(value=pids)),
            containers=containers,
        ),
    )


def _network(record: SandboxRecord, now: int) -> api.NetworkUsage | None:
    """Counters of the pod's interfaces, as its monitor sees them (proc(5), /proc/PID/net/dev)."""
    if not record.netns_path or not record.is_ready:
        return None
    try:
        with open(f"/proc/{record.monitor_pid}/net/dev") as file:
            lines = file.read().splitlines()[2:]
    except (FileNotFoundError, ProcessLookupError):
        return None
    interfaces = [_interface(line) for line in lines if not line.strip().startswith("lo:")]
    found = api.NetworkUsage(timestamp=now, interfaces=[i for i in interfaces if i.name != _DEFAULT_INTERFACE])
    for interface in interfaces:
        if interface.name == _DEFAULT_INTERFACE:
            found.default_interface.CopyFrom(interface)
    return found


def _interface(line: str) -> api.NetworkInterfaceUsage:
    name, _, rest = line.partition(":")
    counters = [int(word) for word in rest.split()]
    return api.NetworkInterfaceUsage(
        name=name.strip(),
        rx_bytes=api.UInt64Value(value=counters[0]),
        rx_errors=api.UInt64Value(value=counters[2]),
        tx_bytes=api.UInt64Value(value=counters[8]),
        tx_errors=api.UInt64Value(value=counters[10]),
    )
