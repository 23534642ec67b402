"""What StopPodSandbox and RemovePodSandbox share: the pod's lock, joined retries, and success for an unknown pod."""

from __future__ import annotations

from collections.abc import Callable

from cri.service import Service
from runtime_core.errors import NotFound
from runtime_core.sandbox.node import Node
from runtime_core.sandbox.records import SandboxRecord
from runtime_core.serving.rpc_handler import Call


def tear_down_sandbox(service: Service, sandbox_id: str, call: Call, function: Callable[[Node, SandboxRecord], None]) -> None:
    """Call `function` with the pod's record under the pod's lock; a retry waits for the same call."""
    node = service.node
    try:
        record = node.sandbox(sandbox_id)
    except NotFound:
        return

    def locked() -> None:
        with node.locks.hold(record.spec.id):
            present = node.sandboxes.find(record.spec.id)
            if present is not None:
                function(node, present)

    service.operations.run_once(f"{call.method} {record.spec.id}", locked, call.time_remaining())
