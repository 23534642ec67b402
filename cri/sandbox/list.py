"""ListPodSandbox and its streaming variant."""

from __future__ import annotations

from collections.abc import Iterator

from cri.api.v1 import api_pb2 as api
from cri.listing import has_labels, pages
from cri.service import Service
from cri.translate import status
from runtime_core.serving.rpc_handler import Call

_PAGE = 200


def list_pod_sandbox(service: Service, request: api.ListPodSandboxRequest, _call: Call) -> api.ListPodSandboxResponse:
    """All pods that fit the filter."""
    return api.ListPodSandboxResponse(items=_query(service, request.filter))


def stream_pod_sandboxes(
    service: Service, request: api.StreamPodSandboxesRequest, _call: Call
) -> Iterator[api.StreamPodSandboxesResponse]:
    """The same in pages."""
    items = _query(service, request.filter)
    for page in pages(items, _PAGE):
        yield api.StreamPodSandboxesResponse(pod_sandboxes=page)


def _query(service: Service, wanted: api.PodSandboxFilter) -> list[api.PodSandbox]:
    found = []
    for record, item in service.sandbox_items.with_messages(service.node.sandboxes.all()):
        if wanted.id and not record.spec.id.startswith(wanted.id):
            continue
        if wanted.HasField("state") and status.sandbox_state(record) != wanted.state.state:
            continue
        if not has_labels(record.spec.labels, wanted.label_selector):
            continue
        found.append(item)
    return found
