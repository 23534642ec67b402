"""Ranges of host-local: order, gateways, refusals."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from cni_plugins.ipam.host_local.allocator import candidates, range_sets
from runtime_core.errors import InvalidArgument


def _texts(ipam: dict[str, Any], last: str = "") -> list[str]:
    (group,) = range_sets(ipam)
    return [one.text(address) for one, address in itertools.islice(candidates(group, last), 8)]


def test_the_gateway_network_and_broadcast_are_never_given() -> None:
    """A /29 has five addresses to give."""
    assert _texts({"subnet": "10.0.0.0/29"}) == ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]


def test_it_goes_on_after_the_last_and_comes_round() -> None:
    """Round robin: an address that was given back rests for as long as it can."""
    assert _texts({"subnet": "10.0.0.0/29"}, "10.0.0.4") == ["10.0.0.5", "10.0.0.6", "10.0.0.2", "10.0.0.3", "10.0.0.4"]


@pytest.mark.parametrize(
    ("ipam", "field"),
    [
        ({}, "ipam.ranges"),
        ({"ranges": [[]]}, r"ipam.ranges\[0\]"),
        ({"ranges": [[{"subnet": "10.0.0.1/24"}]]}, "subnet"),
        ({"ranges": [[{"subnet": "10.0.0.0/31"}]]}, "too small"),
        ({"ranges": [[{"subnet": "10.0.0.0/24", "gateway": "10.1.0.1"}]]}, "gateway"),
        ({"ranges": [[{"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.9", "rangeEnd": "10.0.0.5"}]]}, "rangeStart"),
        ({"ranges": [[{"subnet": "10.0.0.0/24"}], [{"subnet": "10.0.0.0/25"}]]}, "overlap"),
        ({"ranges": [[{"subnet": "10.0.0.0/24"}, {"subnet": "fd00::/64"}]]}, "mixes"),
    ],
)
def test_bad_ranges_are_refused_by_their_field(ipam: dict[str, Any], field: str) -> None:
    """The message says which entry."""
    with pytest.raises(InvalidArgument, match=field):
        range_sets(ipam)
