"""RemoveContainer: running or not, with its snapshot. Idempotent."""

from __future__ import annotations

from cri.api.v1 import api_pb2 as api
from cri.service import Service
from runtime_core.errors import NotFound
from runtime_core.sandbox.close import remove_container as remove
from runtime_core.serving.rpc_handler import Call


def remove_container(service: Service, request: api.RemoveContainerRequest, call: Call) -> api.RemoveContainerResponse:
    """Kill it if it runs, and delete it. Idempotent."""
    try:
        record = service.node.container(request.container_id)
    except NotFound:
        return api.RemoveContainerResponse()
    service.operations.run_once(f"RemoveContainer {record.id}", lambda: remove(service.node, record), call.time_remaining())
    return api.RemoveContainerResponse()
