"""StopContainer: the stop signal, the grace period, SIGKILL. A container that is gone is stopped."""

from __future__ import annotations

from cri.api.v1 import api_pb2 as api
from cri.service import Service
from cri.translate import names
from runtime_core.errors import NotFound
from runtime_core.sandbox.close import stop_container as stop
from runtime_core.serving.rpc_handler import Call


def stop_container(service: Service, request: api.StopContainerRequest, call: Call) -> api.StopContainerResponse:
    """Stop it within `timeout` seconds. Idempotent: an unknown container is stopped."""
    grace = names.seconds(request.timeout, "timeout")
    try:
        record = service.node.container(request.container_id)
    except NotFound:
        return api.StopContainerResponse()
    # Another grace period is another work: who has no patience any more must not wait for who had it.
    service.operations.run_once(
        f"StopContainer {record.id} {grace}", lambda: stop(service.node, record, grace), call.time_remaining()
    )
    return api.StopContainerResponse()
