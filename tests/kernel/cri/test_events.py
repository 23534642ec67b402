"""GetContainerEvents through a real daemon: everything that happens, in order, to every subscriber."""

from __future__ import annotations

import json
import os
import signal
import threading
from typing import Any

import grpc

from cri.api.v1 import api_pb2 as api
from cri.events import MOST_SUBSCRIBERS
from e2e.wait import wait_for
from tests.support.cri_client import Client

CREATED, STARTED, STOPPED, DELETED = range(4)


class Subscriber:
    """Reads in a thread of its own."""

    def __init__(self, client: Client) -> None:
        self.events: list[Any] = []
        self.error: grpc.RpcError | None = None
        self._call = client.runtime.GetContainerEvents(api.GetEventsRequest())
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        try:
            self.events.extend(self._call)
        except grpc.RpcError as error:
            self.error = error

    def with_messages(self, subject: str) -> list[int]:
        return [event.container_event_type for event in self.events if event.container_id == subject]

    def close(self) -> None:
        self._call.cancel()
        self._thread.join(20)
        assert not self._thread.is_alive()


def _subscribed(client: Client, number: int = 1) -> list[Subscriber]:
    """A probe pod tells that the daemon knows them."""
    subscribers = [Subscriber(client) for _number in range(number)]

    def is_heard() -> bool:
        probe = client.pod("probe")
        client.runtime.RemovePodSandbox(api.RemovePodSandboxRequest(pod_sandbox_id=probe))
        return all(subscriber.events for subscriber in subscribers)

    wait_for("the subscriptions", is_heard, 20)
    return subscribers


def test_a_life_is_told_whole_to_every_subscriber(client: Client) -> None:
    """Of the pod and of its container, each event with the states of that moment."""
    subscribers = _subscribed(client, 3)
    pod = client.pod("told")
    container = client.run(pod, "exit 3")
    client.ended(container)
    client.runtime.RemoveContainer(api.RemoveContainerRequest(container_id=container))
    client.runtime.StopPodSandbox(api.StopPodSandboxRequest(pod_sandbox_id=pod))
    client.runtime.RemovePodSandbox(api.RemovePodSandboxRequest(pod_sandbox_id=pod))
    for subscriber in subscribers:
        wait_for("the last event", lambda subscriber=subscriber: subscriber.with_messages(pod)[-1:] == [DELETED], 20)
        assert subscriber.with_messages(pod) == [CREATED, STARTED, STOPPED, DELETED]
        assert subscriber.with_messages(container) == [CREATED, STARTED, STOPPED, DELETED]
        stopped = next(e for e in subscriber.events if e.container_id == container and e.container_event_type == STOPPED)
        (status,) = stopped.containers_statuses
        assert (status.id, status.state, status.exit_code) == (container, api.CONTAINER_EXITED, 3)
        assert stopped.pod_sandbox_status.id == pod and stopped.pod_sandbox_status.metadata.uid == "told"
        assert [e.created_at for e in subscriber.events] == sorted(e.created_at for e in subscriber.events)
        subscriber.close()


def test_a_pod_whose_monitor_dies_is_told(client: Client) -> None:
    """It and its container have stopped."""
    (subscriber,) = _subscribed(client)
    pod = client.pod("dies")
    container = client.run(pod, "sleep 1000")
    info = client.runtime.PodSandboxStatus(api.PodSandboxStatusRequest(pod_sandbox_id=pod, verbose=True)).info["info"]
    os.kill(json.loads(info)["pid"], signal.SIGKILL)
    wait_for(
        "both are told", lambda: STOPPED in subscriber.with_messages(pod) and STOPPED in subscriber.with_messages(container), 30
    )
    client.runtime.RemovePodSandbox(api.RemovePodSandboxRequest(pod_sandbox_id=pod))
    subscriber.close()


def test_subscribers_are_bounded_and_leave_nothing(client: Client) -> None:
    """One more is RESOURCE_EXHAUSTED; after they have gone there is room again, and calls were answered all the while."""
    subscribers = _subscribed(client, MOST_SUBSCRIBERS)
    more = Subscriber(client)
    wait_for("it is refused", lambda: more.error is not None, 20)
    assert more.error is not None and more.error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    for subscriber in subscribers:
        subscriber.close()
    _subscribed(client)[0].close()
