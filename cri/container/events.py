"""GetContainerEvents: what happens to containers and pods, as it happens."""

from __future__ import annotations

from collections.abc import Iterator

from cri.api.v1 import api_pb2 as api
from cri.service import Service
from runtime_core.serving.rpc_handler import Call


def get_container_events(service: Service, _request: api.GetEventsRequest, call: Call) -> Iterator[api.ContainerEventResponse]:
    """Until the client has gone; RESOURCE_EXHAUSTED for one that reads too slowly, or for one subscriber too many."""
    subscription = service.events.subscribe()
    try:
        call.on_end(subscription.close)
        yield from subscription
    finally:
        service.events.unsubscribe(subscription)
