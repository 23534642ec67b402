"""StopContainer: the stop signal, the grace period, SIGKILL. A container that is gone is stopped."""

from __future__ import annotations

from cri.api.v1 import api_pb2 as api
from cri.service import Service
from runtime_core.errors import InvalidArgument, NotFound
from runtime_core.sandbox.close import stop_container as stop
from runtime_core.serving.gate import Call


def stop_container(service: Service, request: api.StopContainerRequest, call: Call) -> api.StopContainerResponse:
    if request.timeout < 0:
        raise InvalidArgument(f"timeout: {request.timeout} is negative")
    try:
        record = service.node.container(request.container_id)
    except NotFound:
        return api.StopContainerResponse()
    key = f"StopContainer {record.id}" + (" now" if request.timeout == 0 else "")
    service.operations.once(key, lambda: stop(service.node, record, float(request.timeout)), call.time_remaining())
    return api.StopContainerResponse()
