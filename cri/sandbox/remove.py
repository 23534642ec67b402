"""RemovePodSandbox: the pod, its containers and all they had, by force."""

from __future__ import annotations

from cri.api.v1 import api_pb2 as api
from cri.service import Service
from runtime_core.errors import NotFound
from runtime_core.sandbox.close import remove_sandbox
from runtime_core.serving.gate import Call


def remove_pod_sandbox(service: Service, request: api.RemovePodSandboxRequest, call: Call) -> api.RemovePodSandboxResponse:
    node = service.node
    try:
        record = node.sandbox(request.pod_sandbox_id)
    except NotFound:
        return api.RemovePodSandboxResponse()

    def remove() -> None:
        with node.locks.hold(record.spec.id):
            present = node.sandboxes.find(record.spec.id)
            if present is not None:
                remove_sandbox(node, present)

    service.operations.once(f"RemovePodSandbox {record.spec.id}", remove, call.time_remaining())
    return api.RemovePodSandboxResponse()
