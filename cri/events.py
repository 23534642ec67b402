"""What happens to containers and pods, told to whoever subscribes: derived from changes of records, so that none is forgotten."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator

from cri.api.v1 import api_pb2 as api
from cri.translate import status
from runtime_core.errors import ResourceExhausted
from runtime_core.sandbox.node import Node
from runtime_core.sandbox.records import ContainerRecord, SandboxRecord, State

#: what a subscriber may have to read
MOST_UNREAD = 1000
#: each keeps a thread of the server
MOST_SUBSCRIBERS = 32


class Subscription:
    """Events in their order, until it is closed."""

    def __init__(self) -> None:
        self._queue: queue.Queue[api.ContainerEventResponse | None] = queue.Queue(MOST_UNREAD + 1)
        self._has_lost = False

    def put(self, event: api.ContainerEventResponse) -> None:
        """A subscriber that is too far behind gets no more, and is told so at the end of what it has."""
        if self._has_lost:
            return
        if self._queue.qsize() >= MOST_UNREAD:
            self._has_lost = True
            self.close()
        else:
            self._queue.put(event)

    def close(self) -> None:
        """Ends the iteration behind what is there."""
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            return  # an end is in it already

    def __iter__(self) -> Iterator[api.ContainerEventResponse]:
        while (event := self._queue.get()) is not None:
            yield event
        if self._has_lost:
            raise ResourceExhausted(
                f"{MOST_UNREAD} events were not read, and more have come: list what there is and subscribe again"
            )


class Events:
    """All subscriptions of one daemon."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._lock = threading.Lock()
        self._subscriptions: list[Subscription] = []
        node.containers.on_change = self._container_changed
        node.sandboxes.on_change = self._sandbox_changed

    def subscribe(self) -> Subscription:
        """All that happens from now on; ResourceExhausted when MOST_SUBSCRIBERS are there."""
        subscription = Subscription()
        with self._lock:
            if len(self._subscriptions) >= MOST_SUBSCRIBERS:
                raise ResourceExhausted(f"{MOST_SUBSCRIBERS} clients read events already")
            self._subscriptions.append(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Tell it nothing more."""
        with self._lock:
            self._subscriptions.remove(subscription)

    def close(self) -> None:
        """End all subscriptions: the server stops."""
        with self._lock:
            for subscription in self._subscriptions:
                subscription.close()

    def _container_changed(self, before: ContainerRecord | None, after: ContainerRecord | None) -> None:
        record = after or before
        if record is None or not self._subscriptions:
            return
        sandbox = self._node.sandboxes.find(record.sandbox_id)
        for kind in _container_events(before, after):
            self._publish(kind, record.id, sandbox)

    def _sandbox_changed(self, before: SandboxRecord | None, after: SandboxRecord | None) -> None:
        record = after or before
        if record is None or not self._subscriptions:
            return
        for kind in _sandbox_events(before, after):
            self._publish(kind, record.spec.id, record)

    def _publish(self, kind: api.ContainerEventType, subject: str, sandbox: SandboxRecord | None) -> None:
        containers = self._node.containers_of(sandbox.spec.id) if sandbox is not None else []
        event = api.ContainerEventResponse(
            container_id=subject,
            container_event_type=kind,
            created_at=time.time_ns(),
            pod_sandbox_status=status.sandbox_status(sandbox) if sandbox is not None else None,
            containers_statuses=[status.container_status(container) for container in containers],
        )
        with self._lock:
            for subscription in self._subscriptions:
                subscription.put(event)


def _container_events(before: ContainerRecord | None, after: ContainerRecord | None) -> list[api.ContainerEventType]:
    if after is None:
        return [api.CONTAINER_DELETED_EVENT]
    if before is None:
        return [api.CONTAINER_CREATED_EVENT]
    if before.state == after.state:
        return []
    return [api.CONTAINER_STARTED_EVENT if after.state == State.RUNNING else api.CONTAINER_STOPPED_EVENT]


def _sandbox_events(before: SandboxRecord | None, after: SandboxRecord | None) -> list[api.ContainerEventType]:
    """A pod is told of as a container of its own, as the kubelet expects it."""
    if after is None:
        return [api.CONTAINER_DELETED_EVENT]
    if before is None:
        return [api.CONTAINER_CREATED_EVENT, api.CONTAINER_STARTED_EVENT]
    return [api.CONTAINER_STOPPED_EVENT] if before.is_ready and not after.is_ready else []
