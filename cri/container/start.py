"""StartContainer: let the program run."""

from __future__ import annotations

from cri.api.v1 import api_pb2 as api
from cri.service import Service
from runtime_core.errors import FailedPrecondition, TrivetError
from runtime_core.interfaces.runtime import PodLost
from runtime_core.kernel import failpoint
from runtime_core.sandbox.node import Node
from runtime_core.sandbox.records import State
from runtime_core.serving.rpc_handler import Call


def start_container(service: Service, request: api.StartContainerRequest, call: Call) -> api.StartContainerResponse:
    """Execute the program of a created container; raises what exec(2) said."""
    record = service.node.container(request.container_id)
    service.operations.run_once(f"StartContainer {record.id}", lambda: _start(service.node, record.id), call.time_remaining())
    return api.StartContainerResponse()


def _start(node: Node, container_id: str) -> None:
    record = node.containers.get(container_id)
    if record.state != State.CREATED:
        raise FailedPrecondition(f"container {container_id} is {record.state.name.lower()}, only a created one can be started")
    try:
        started_at = node.runtime_of(record.sandbox_id).start(record.sandbox_id, container_id)
    except PodLost:
        raise  # whether it ran and how it ended is being told
    except TrivetError as error:
        node.container_failed(container_id, str(error))
        raise
    failpoint.hit("start.started")
    node.container_started(container_id, started_at)
