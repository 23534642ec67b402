"""A subscription to events keeps their order, and never has a gap without saying so."""

from __future__ import annotations

import pytest

from cri.api.v1 import api_pb2 as api
from cri.events import MOST_UNREAD, Subscription
from runtime_core.errors import ResourceExhausted


def test_events_are_read_in_order_until_it_is_closed() -> None:
    """Also those that were there before the end."""
    subscription = Subscription()
    for number in range(3):
        subscription.put(api.ContainerEventResponse(created_at=number))
    subscription.close()
    subscription.close()
    assert [event.created_at for event in subscription] == [0, 1, 2]


def test_who_reads_too_slowly_is_told() -> None:
    """After what is unread, and whatever comes meanwhile."""
    subscription, read = Subscription(), []
    for number in range(MOST_UNREAD + 5):
        subscription.put(api.ContainerEventResponse(created_at=number))
    with pytest.raises(ResourceExhausted, match="subscribe again"):
        for event in subscription:
            read.append(event.created_at)
            subscription.put(api.ContainerEventResponse(created_at=-1))
    assert read == list(range(MOST_UNREAD))
