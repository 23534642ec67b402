"""ExecSync: a command in a running container, its end and its output."""

from __future__ import annotations

from cri.api.v1 import api_pb2 as api
from cri.service import Service
from cri.translate import names
from runtime_core.errors import FailedPrecondition, InvalidArgument
from runtime_core.sandbox.records import State
from runtime_core.serving.rpc_handler import Call


def exec_sync(service: Service, request: api.ExecSyncRequest, _call: Call) -> api.ExecSyncResponse:
    """Run the command and wait for its end; DeadlineExceeded after `timeout` seconds (0: none)."""
    record = service.node.container(request.container_id)
    if not request.cmd:
        raise InvalidArgument("cmd is empty")
    timeout = names.seconds(request.timeout, "timeout")
    if record.state != State.RUNNING:
        raise FailedPrecondition(f"container {record.id} is {record.state.name.lower()}, not running")
    process = {**record.process, "args": list(request.cmd), "terminal": False}
    result = service.node.runtime_of(record.sandbox_id).exec_sync(record.sandbox_id, record.id, process, timeout or None)
    return api.ExecSyncResponse(stdout=result.stdout, stderr=result.stderr, exit_code=result.exit_code)
