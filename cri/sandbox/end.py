"""What StopPodSandbox and RemovePodSandbox share: a pod ended once, under its lock, and gone is as good as ended."""

from __future__ import annotations

from collections.abc import Callable

from cri.service import Service
from runtime_core.errors import NotFound
from runtime_core.sandbox.node import Node
from runtime_core.sandbox.records import SandboxRecord
from runtime_core.serving.gate import Call


def end_sandbox(service: Service, sandbox_id: str, call: Call, work: Callable[[Node, SandboxRecord], None]) -> None:
    """Do `work` on the pod as it is when its lock is held; a retry joins."""
    node = service.node
    try:
        record = node.sandbox(sandbox_id)
    except NotFound:
        return

    def locked() -> None:
        with node.locks.hold(record.spec.id):
            present = node.sandboxes.find(record.spec.id)
            if present is not None:
                work(node, present)

    service.operations.once(f"{call.method} {record.spec.id}", locked, call.time_remaining())
