"""StopPodSandbox: end its processes, give its network back. A pod that is gone is stopped."""

from __future__ import annotations

from cri.api.v1 import api_pb2 as api
from cri.sandbox.teardown import tear_down_sandbox
from cri.service import Service
from runtime_core.sandbox.close import stop_sandbox
from runtime_core.serving.rpc_handler import Call


def stop_pod_sandbox(service: Service, request: api.StopPodSandboxRequest, call: Call) -> api.StopPodSandboxResponse:
    """Kill the pod's processes and release its network. Idempotent."""
    tear_down_sandbox(service, request.pod_sandbox_id, call, stop_sandbox)
    return api.StopPodSandboxResponse()
