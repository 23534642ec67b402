"""PortForward: a URL at which connections to the pod's ports can be had."""

from __future__ import annotations

from cri.api.v1 import api_pb2 as api
from cri.service import Service
from runtime_core.errors import FailedPrecondition, InvalidArgument
from runtime_core.serving.rpc_handler import Call


def open_port_forward(service: Service, request: api.PortForwardRequest, _call: Call) -> api.PortForwardResponse:
    """The URL is good once, for a minute, and for any port over SPDY; WebSocket channels are for the ports named here."""
    for number, port in enumerate(request.port):
        if not 0 < port < 65536:
            raise InvalidArgument(f"port[{number}]: {port} is no port")
    record = service.node.sandbox(request.pod_sandbox_id)
    if not record.is_ready:
        raise FailedPrecondition(f"pod sandbox {record.spec.id} is not ready")
    grant = {"pod_id": record.spec.id, "ports": list(request.port)}
    return api.PortForwardResponse(url=service.streams.url("portforward", grant, record.netns_path))
