"""RunPodSandbox: open a pod, or leave nothing behind."""

from __future__ import annotations

from cri.api.v1 import api_pb2 as api
from cri.service import Service
from cri.translate.sandbox import sandbox_spec
from runtime_core.errors import AlreadyExists
from runtime_core.sandbox.open import open_sandbox
from runtime_core.sandbox.records import SandboxRecord, SandboxSpec
from runtime_core.serving.rpc_handler import Call


def run_pod_sandbox(service: Service, request: api.RunPodSandboxRequest, call: Call) -> api.RunPodSandboxResponse:
    """Open the pod; its id. On any error nothing of it is left."""
    spec = sandbox_spec(request, service.handlers, service.default_cgroup_parent)
    # The work outlives the kubelet's deadline; its retry joins instead of failing on the name.
    record = service.operations.run_once(
        f"RunPodSandbox {spec.name} {spec.request}", lambda: _open(service, spec), call.time_remaining()
    )
    return api.RunPodSandboxResponse(pod_sandbox_id=record.spec.id)


def _open(service: Service, spec: SandboxSpec) -> SandboxRecord:
    """A name is one pod's until that is removed."""
    with service.node.locks.hold(f"name {spec.name}"):
        for present in service.node.sandboxes.all():
            if present.spec.name == spec.name:
                if present.is_ready and present.spec.request == spec.request:
                    return present  # the first call's answer was lost on its way
                state = "of another request" if present.is_ready else "not ready"
                raise AlreadyExists(f"config.metadata: pod {spec.name} exists as {present.spec.id} and is {state}")
        return open_sandbox(service.node, spec)
