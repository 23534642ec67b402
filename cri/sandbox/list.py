"""ListPodSandbox and its stream twin, over one query."""

from __future__ import annotations

from collections.abc import Iterator

from cri.api.v1 import api_pb2 as api
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
    for start in range(0, len(items), _PAGE):
        yield api.StreamPodSandboxesResponse(pod_sandboxes=items[start : start + _PAGE])


def _query(service: Service, wanted: api.PodSandboxFilter) -> list[api.PodSandbox]:
    found = []
    for record in service.node.sandboxes.all():
        if wanted.id and not record.spec.id.startswith(wanted.id):
            continue
        if wanted.HasField("state") and status.sandbox_state(record) != wanted.state.state:
            continue
        if any(record.spec.labels.get(key) != value for key, value in wanted.label_selector.items()):
            continue
        found.append(status.sandbox_item(record))
    return found
