"""StopPodSandbox: end its processes, give its network back. A pod that is gone is stopped."""

from __future__ import annotations

from cri.api.v1 import api_pb2 as api
from cri.service import Service
from runtime_core.errors import NotFound
from runtime_core.sandbox.close import stop_sandbox
from runtime_core.serving.gate import Call


def stop_pod_sandbox(service: Service, request: api.StopPodSandboxRequest, call: Call) -> api.StopPodSandboxResponse:
    node = service.node
    try:
        record = node.sandbox(request.pod_sandbox_id)
    except NotFound:
        return api.StopPodSandboxResponse()

    def stop() -> None:
        with node.locks.hold(record.spec.id):
            present = node.sandboxes.find(record.spec.id)
            if present is not None:
                stop_sandbox(node, present)

    service.operations.once(f"StopPodSandbox {record.spec.id}", stop, call.time_remaining())
    return api.StopPodSandboxResponse()
