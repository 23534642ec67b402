"""ListContainers and its streaming variant."""

from __future__ import annotations

from collections.abc import Iterator

from cri.api.v1 import api_pb2 as api
from cri.listing import has_labels, pages
from cri.service import Service
from runtime_core.serving.rpc_handler import Call

_PAGE = 200


def list_containers(service: Service, request: api.ListContainersRequest, _call: Call) -> api.ListContainersResponse:
    """All containers that fit the filter."""
    return api.ListContainersResponse(containers=_query(service, request.filter))


def stream_containers(
    service: Service, request: api.StreamContainersRequest, _call: Call
) -> Iterator[api.StreamContainersResponse]:
    """The same in pages."""
    items = _query(service, request.filter)
    for page in pages(items, _PAGE):
        yield api.StreamContainersResponse(containers=page)


def _query(service: Service, wanted: api.ContainerFilter) -> list[api.Container]:
    found = []
    for record, item in service.container_items.with_messages(service.node.containers.all()):
        if wanted.id and not record.id.startswith(wanted.id):
            continue
        if wanted.pod_sandbox_id and not record.sandbox_id.startswith(wanted.pod_sandbox_id):
            continue
        if wanted.HasField("state") and int(record.state) != wanted.state.state:
            continue
        if not has_labels(record.labels, wanted.label_selector):
            continue
        found.append(item)
    return found
