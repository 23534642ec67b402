"""RemovePodSandbox: the pod, its containers and all they had, by force."""

from __future__ import annotations

from cri.api.v1 import api_pb2 as api
from cri.sandbox.teardown import tear_down_sandbox
from cri.service import Service
from runtime_core.sandbox.close import remove_sandbox
from runtime_core.serving.rpc_handler import Call


def remove_pod_sandbox(service: Service, request: api.RemovePodSandboxRequest, call: Call) -> api.RemovePodSandboxResponse:
    """Remove the pod and its containers, running or not. Idempotent."""
    tear_down_sandbox(service, request.pod_sandbox_id, call, remove_sandbox)
    return api.RemovePodSandboxResponse()
