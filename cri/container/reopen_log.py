"""ReopenContainerLog: the kubelet has moved the log file away."""

from __future__ import annotations

from cri.api.v1 import api_pb2 as api
from cri.service import Service
from runtime_core.errors import FailedPrecondition
from runtime_core.sandbox.records import State
from runtime_core.serving.rpc_handler import Call


def reopen_container_log(service: Service, request: api.ReopenContainerLogRequest, _call: Call) -> api.ReopenContainerLogResponse:
    """Open the log file anew; FailedPrecondition when the container does not run."""
    record = service.node.container(request.container_id)
    if record.state != State.RUNNING:
        raise FailedPrecondition(f"container {record.id} is {record.state.name.lower()}, not running")
    service.node.runtime_of(record.sandbox_id).reopen_log(record.sandbox_id, record.id)
    return api.ReopenContainerLogResponse()
