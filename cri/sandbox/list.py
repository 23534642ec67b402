"""ListPodSandbox and its stream twin, over one query."""

from __future__ import annotations

from collections.abc import Iterator

from cri.api.v1 import api_pb2 as api
from cri.listing import has_labels, pages
from cri.service import Service
from cri.translate import status
from runtime_core.serving.gate import Call

_PAGE = 200


def list_pod_sandbox(service: Service, request: api.ListPodSandboxRequest, _call: Call) -> api.ListPodSandboxResponse:
    return api.ListPodSandboxResponse(items=_query(service, request.filter))


def stream_pod_sandboxes(
    service: Service, request: api.StreamPodSandboxesRequest, _call: Call
) -> Iterator[api.StreamPodSandboxesResponse]:
    items = _query(service, request.filter)
    for page in pages(items, _PAGE):
        yield api.StreamPodSandboxesResponse(pod_sandboxes=page)


def _query(service: Service, wanted: api.PodSandboxFilter) -> list[api.PodSandbox]:
    found = []
    for record, item in service.sandbox_items.of(service.node.sandboxes.all()):
        if wanted.id and not record.spec.id.startswith(wanted.id):
            continue
        if wanted.HasField("state") and status.sandbox_state(record) != wanted.state.state:
            continue
        if not has_labels(record.spec.labels, wanted.label_selector):
            continue
        found.append(item)
    return found
