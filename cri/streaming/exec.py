"""Exec: a URL at which a command's streams can be had."""

from __future__ import annotations

from cri.api.v1 import api_pb2 as api
from cri.service import Service
from cri.streaming.streams import check_streams, running_container
from runtime_core.errors import InvalidArgument
from runtime_core.serving.rpc_handler import Call


def open_exec(service: Service, request: api.ExecRequest, _call: Call) -> api.ExecResponse:
    """The URL is good once, for a minute; the command runs when it is used."""
    check_streams(request)
    if not request.cmd:
        raise InvalidArgument("cmd is empty")
    record = running_container(service, request.container_id)
    grant = {
        "directory": service.node.directories.pod(record.sandbox_id),
        "container_id": record.id,
        "process": {**record.process, "args": list(request.cmd), "terminal": request.tty},
        "stdin": request.stdin,
        "stdout": request.stdout,
        "stderr": request.stderr,
        "tty": request.tty,
    }
    return api.ExecResponse(url=service.streams.url("exec", grant))
