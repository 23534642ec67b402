"""Attach: a URL at which the streams of a running container's own process can be had."""

from __future__ import annotations

from cri.api.v1 import api_pb2 as api
from cri.service import Service
from cri.streaming.streams import check_streams, running_container
from runtime_core.serving.rpc_handler import Call


def open_attach(service: Service, request: api.AttachRequest, _call: Call) -> api.AttachResponse:
    """The URL is good once, for a minute."""
    check_streams(request)
    record = running_container(service, request.container_id)
    grant = {
        "directory": service.node.directories.pod(record.sandbox_id),
        "container_id": record.id,
        "stdin": request.stdin,
        "stdout": request.stdout,
        "stderr": request.stderr,
        "tty": request.tty,
    }
    return api.AttachResponse(url=service.streams.url("attach", grant))
