"""StopPodSandbox: end its processes, give its network back. A pod that is gone is stopped."""

from __future__ import annotations

from cri.api.v1 import api_pb2 as api
from cri.sandbox.end import end_sandbox
from cri.service import Service
from runtime_core.sandbox.close import stop_sandbox
from runtime_core.serving.gate import Call


def stop_pod_sandbox(service: Service, request: api.StopPodSandboxRequest, call: Call) -> api.StopPodSandboxResponse:
    end_sandbox(service, request.pod_sandbox_id, call, stop_sandbox)
    return api.StopPodSandboxResponse()
