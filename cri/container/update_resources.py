"""UpdateContainerResources: all of the new limits, or none of them."""

from __future__ import annotations

from dataclasses import replace

from cri.api.v1 import api_pb2 as api
from cri.service import Service
from cri.translate.resources import merged, oci_resources
from runtime_core.errors import FailedPrecondition
from runtime_core.sandbox.records import State
from runtime_core.serving.rpc_handler import Call


def update_container_resources(
    service: Service, request: api.UpdateContainerResourcesRequest, _call: Call
) -> api.UpdateContainerResourcesResponse:
    """Change the limits that the request sets; on an error none is changed."""
    node = service.node
    record = node.container(request.container_id)
    if record.state not in (State.CREATED, State.RUNNING):
        raise FailedPrecondition(f"container {record.id} is {record.state.name.lower()}")
    change = oci_resources(request.linux, "linux", is_v2=service.facts.is_cgroup_v2)
    whole = merged(record.resources, change)  # swap alone, for instance, is nothing without the memory limit
    node.runtime_of(record.sandbox_id).update(record.sandbox_id, record.id, whole)
    node.containers.update(record.id, lambda present: replace(present, resources=whole))
    return api.UpdateContainerResourcesResponse()
