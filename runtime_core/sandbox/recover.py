"""Recovery at the start: reconnect to the pods of the last daemon, and release what no record owns."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from runtime_core.errors import NotFound, TrivetError
from runtime_core.interfaces.runtime import ContainerExit, ContainerProcess
from runtime_core.sandbox.node import Node
from runtime_core.sandbox.records import ContainerRecord, SandboxRecord, State, pod_network

_PARALLEL = 8
_LOST = 255


def recover(node: Node, report_problem: Callable[[str, TrivetError], None]) -> None:
    """Reconnect to every monitor, then sweep owners that have no record. Errors go to `report_problem`."""
    with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="recover") as pool:
        for record, future in [(r, pool.submit(_recover_pod, node, r)) for r in node.sandboxes.all()]:
            try:
                future.result()
            except TrivetError as error:
                report_problem(f"pod {record.spec.id}", error)
                node.pod_lost(record.spec.id)
    known = {record.spec.id for record in node.sandboxes.all()} | {record.id for record in node.containers.all()}
    for owner in node.ledger.owners() - known:
        for failure in node.ledger.sweep(owner):
            report_problem(f"owner {owner}", failure)
    for key in node.snapshotter.snapshots():
        if key not in known:
            node.snapshotter.remove(key)
    pods = [pod_network(r.spec, r.netns_path) for r in node.sandboxes.all() if r.is_ready]
    try:
        node.network.collect_garbage(pods)
    except TrivetError as error:
        report_problem("network garbage collection", error)
    node.network.check(pods, lambda pod_id, error: report_problem(f"network of pod {pod_id}", error))


def _recover_pod(node: Node, record: SandboxRecord) -> None:
    containers = {container.id: container for container in node.containers_of(record.spec.id)}
    living = [container.id for container in containers.values() if container.state != State.EXITED]
    for container_id in living:
        node.expect_exit(container_id)
    if not record.is_ready and not living:  # a lost one may have been left before its containers were cleaned up
        return
    try:
        processes = node.runtime(record.spec.handler).recover_pod(record.pod())
    except NotFound:
        node.pod_lost(record.spec.id)
        processes = []
    seen = {process.id: process for process in processes}
    for container in containers.values():
        _reconcile(node, container, seen.pop(container.id, None))
    for unknown in seen:  # created, but the daemon died before it was recorded
        node.runtime(record.spec.handler).delete(record.spec.id, unknown)


def _reconcile(node: Node, record: ContainerRecord, process: ContainerProcess | None) -> None:
    present = node.containers.get(record.id)
    if present.state == State.EXITED:
        return
    if process is None:
        node.container_ended(
            ContainerExit(
                pod_id=record.sandbox_id,
                container_id=record.id,
                exit_code=_LOST,
                finished_at=record.started_at or record.created_at,
                message="the container was gone when the runtime started",
            )
        )
        return
    if process.started_at and present.state == State.CREATED:
        node.container_started(record.id, process.started_at)
    if process.exit is not None:
        node.container_ended(process.exit)
