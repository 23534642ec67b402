"""PodSandboxStatus: one pod as it is, from memory."""

from __future__ import annotations

import json
import time

from cri.api.v1 import api_pb2 as api
from cri.service import Service
from cri.translate import status
from runtime_core.serving.rpc_handler import Call


def pod_sandbox_status(service: Service, request: api.PodSandboxStatusRequest, _call: Call) -> api.PodSandboxStatusResponse:
    """From the record, with the statuses of its containers. NotFound for an unknown id."""
    record = service.node.sandbox(request.pod_sandbox_id)
    containers = service.node.containers_of(record.spec.id)
    info = {}
    if request.verbose:
        info["info"] = json.dumps(
            {"pid": record.monitor_pid, "netns": record.netns_path, "cniResult": record.network, "directory": record.directory}
        )
    return api.PodSandboxStatusResponse(
        status=status.sandbox_status(record),
        info=info,
        # Whoever gives a timestamp gives the containers too: the kubelet trusts the two together.
        containers_statuses=[status.container_status(container) for container in containers],
        timestamp=time.time_ns(),
    )
