"""Stop and remove pods and containers. Idempotent, and able to work from the records alone."""

from __future__ import annotations

import signal
from dataclasses import replace

from runtime_core.errors import DeadlineExceeded, NotFound, TrivetError
from runtime_core.interfaces.runtime import PodLost
from runtime_core.kernel import failpoint
from runtime_core.sandbox.node import Node
from runtime_core.sandbox.records import ContainerRecord, SandboxRecord, State

_KILL_SECONDS = 30.0


def stop_container(node: Node, record: ContainerRecord, grace: float) -> None:
    """The stop signal, then SIGKILL after `grace` seconds. Returns when the end is recorded."""
    if record.state == State.EXITED:
        return
    runtime = node.runtime_of(record.sandbox_id)
    try:
        if grace > 0 and record.state == State.RUNNING:
            runtime.kill(record.sandbox_id, record.id, record.stop_signal)
            failpoint.hit("stop.signalled")
            if node.wait_for_exit(record.id, grace):
                return
        runtime.kill(record.sandbox_id, record.id, signal.SIGKILL, everything=True)
        runtime.kill(record.sandbox_id, record.id, signal.SIGKILL)
    except (NotFound, PodLost):
        pass  # its monitor has died: the ends are being told
    if not node.wait_for_exit(record.id, _KILL_SECONDS):
        raise DeadlineExceeded(f"container {record.id} does not end after SIGKILL")


def remove_container(node: Node, record: ContainerRecord) -> None:
    """Kill it if it runs; release its snapshot and cgroup, and delete its record."""
    stop_container(node, record, 0)
    failpoint.hit("remove.stopped")
    _raise_first(node.ledger.sweep(record.id))
    failpoint.hit("remove.released")
    node.containers.delete(record.id)
    node.forget_exit(record.id)


def stop_sandbox(node: Node, record: SandboxRecord) -> None:
    """Kill its containers, give its network back, end its monitor."""
    for container in node.containers_of(record.spec.id):
        stop_container(node, container, 0)
    failpoint.hit("stop.killed")
    _raise_first(node.ledger.sweep(record.spec.id, kinds=("network", "pod")))
    failpoint.hit("stop.released")
    node.sandboxes.update(record.spec.id, lambda present: replace(present, is_ready=False))


def remove_sandbox(node: Node, record: SandboxRecord) -> None:
    """Stop the pod, remove its containers, and delete its record."""
    if record.is_ready or node.ledger.held(record.spec.id):
        stop_sandbox(node, record)
    for container in node.containers_of(record.spec.id):
        remove_container(node, container)
    _raise_first(node.ledger.sweep(record.spec.id))
    node.sandbox_removed(record.spec.id)
    # What another pod left to this one while it went: nobody can leave anything to it any more.
    _raise_first(node.ledger.sweep(record.spec.id))


def _raise_first(errors: list[TrivetError]) -> None:
    if errors:
        raise errors[0]
