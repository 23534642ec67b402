"""Status: is the runtime ready, is the network ready, what can each handler do. From memory."""

from __future__ import annotations

import json

from cri.api.v1 import api_pb2 as api
from cri.service import Service
from runtime_core.serving.rpc_handler import Call


def status(service: Service, request: api.StatusRequest, _call: Call) -> api.StatusResponse:
    """The conditions RuntimeReady and NetworkReady, and the features of each handler."""
    network = service.node.network.status()
    info = {}
    if request.verbose:
        info["config"] = json.dumps(
            {
                "root": str(service.node.directories.root),
                "state": str(service.node.directories.state),
                "cgroupDriver": service.cgroup_driver,
                "handlers": service.handlers,
            }
        )
    return api.StatusResponse(
        status=api.RuntimeStatus(
            conditions=[
                api.RuntimeCondition(type="RuntimeReady", status=True),
                api.RuntimeCondition(
                    type="NetworkReady", status=network.is_ready, reason=network.reason, message=network.message
                ),
            ]
        ),
        info=info,
        runtime_handlers=[
            api.RuntimeHandler(
                name=name,
                features=api.RuntimeHandlerFeatures(
                    recursive_read_only_mounts="rro" in features.get("mountOptions", []),
                    user_namespaces="user" in features.get("linux", {}).get("namespaces", []),
                ),
            )
            for name, features in service.handlers.items()
        ],
        features=api.RuntimeFeatures(supplemental_groups_policy=True, user_namespaces_host_network=True),
    )
