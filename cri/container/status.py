"""ContainerStatus: one container as it is, from memory."""

from __future__ import annotations

import json

from cri.api.v1 import api_pb2 as api
from cri.service import Service
from cri.translate import status
from runtime_core.sandbox.records import State
from runtime_core.serving.rpc_handler import Call


def container_status(service: Service, request: api.ContainerStatusRequest, _call: Call) -> api.ContainerStatusResponse:
    """From the record; `verbose` adds PIDs and configuration. NotFound for an unknown id."""
    record = service.node.container(request.container_id)
    info = {}
    if request.verbose:
        pids = service.node.cgroups.processes(record.cgroup_path) if record.state == State.RUNNING else []
        info["info"] = json.dumps(
            {"sandboxID": record.sandbox_id, "pid": min(pids, default=0), "cgroup": record.cgroup_path, "process": record.process}
        )
    return api.ContainerStatusResponse(status=status.container_status(record), info=info)
