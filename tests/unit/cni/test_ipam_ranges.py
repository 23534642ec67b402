"""Ranges of host-local: order, gateways, refusals."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from cni_plugins.ipam.host_local.address_key import address_to_key, key_to_text
from cni_plugins.ipam.host_local.ranges import range_sets, search_order
from runtime_core.errors import InvalidArgument


def _spans(ipam: dict[str, Any], last: str = "") -> list[tuple[str, str]]:
    (group,) = range_sets(ipam)
    after = address_to_key(ipaddress.ip_address(last)) if last else b""
    return [(key_to_text(first), key_to_text(end)) for _one, first, end in search_order(group, after)]


@pytest.mark.parametrize(
    ("entry", "first", "last", "gateway"),
    [
        ({"subnet": "10.0.0.0/29"}, "10.0.0.1", "10.0.0.6", "10.0.0.1"),
        ({"subnet": "10.0.0.0/30"}, "10.0.0.1", "10.0.0.2", "10.0.0.1"),
        ({"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.9"}, "10.0.0.9", "10.0.0.254", "10.0.0.1"),
        ({"subnet": "10.0.0.0/24", "rangeEnd": "10.0.0.9"}, "10.0.0.1", "10.0.0.9", "10.0.0.1"),
        ({"subnet": "10.0.0.0/24", "gateway": "10.0.0.254"}, "10.0.0.1", "10.0.0.254", "10.0.0.254"),
        ({"subnet": "10.0.0.0/24", "gateway": "", "rangeStart": None}, "10.0.0.1", "10.0.0.254", "10.0.0.1"),
        ({"subnet": "fd00::/64"}, "fd00::1", "fd00::ffff:ffff:ffff:ffff", "fd00::1"),
        ({"subnet": "fd00::/64", "rangeStart": "fd00::10", "rangeEnd": "fd00::20"}, "fd00::10", "fd00::20", "fd00::1"),
    ],
)
def test_the_bounds_of_a_range(entry: dict[str, Any], first: str, last: str, gateway: str) -> None:
    """The network's own address and IPv4's broadcast are never given; the gateway is the first unless it is said."""
    for ipam in ({"ranges": [[entry]]}, entry):  # the old form says the same
        ((one,),) = range_sets(ipam)
        assert (key_to_text(one.first), key_to_text(one.last), one.gateway_text) == (first, last, gateway)
        assert key_to_text(one.gateway) == gateway


@pytest.mark.parametrize(
    ("last", "order"),
    [
        ("", [("10.0.0.1", "10.0.0.6"), ("10.1.0.1", "10.1.0.6")]),
        ("10.0.0.4", [("10.0.0.5", "10.0.0.6"), ("10.1.0.1", "10.1.0.6"), ("10.0.0.1", "10.0.0.4")]),
        ("10.0.0.6", [("10.1.0.1", "10.1.0.6"), ("10.0.0.1", "10.0.0.6")]),
        ("10.1.0.2", [("10.1.0.3", "10.1.0.6"), ("10.0.0.1", "10.0.0.6"), ("10.1.0.1", "10.1.0.2")]),
        ("10.9.9.9", [("10.0.0.1", "10.0.0.6"), ("10.1.0.1", "10.1.0.6")]),
        ("fd00::1", [("10.0.0.1", "10.0.0.6"), ("10.1.0.1", "10.1.0.6")]),
    ],
)
def test_it_goes_on_after_the_last_and_comes_round(last: str, order: list[tuple[str, str]]) -> None:
    """Round robin through all ranges of a set: an address that was given back rests for as long as it can."""
    assert _spans({"ranges": [[{"subnet": "10.0.0.0/29"}, {"subnet": "10.1.0.0/29"}]]}, last) == order


def test_sets_come_in_the_reference_plugins_order() -> None:
    """The runtime's ranges, then the old form, then the list."""
    ipam = {"subnet": "10.1.0.0/24", "ranges": [[{"subnet": "10.2.0.0/24"}], [{"subnet": "fd00::/64"}]]}
    sets = range_sets(ipam, [[{"subnet": "10.0.0.0/24"}]])
    assert [str(group[0].network) for group in sets] == ["10.0.0.0/24", "10.1.0.0/24", "10.2.0.0/24", "fd00::/64"]


@pytest.mark.parametrize(
    ("ipam", "field"),
    [
        ({}, "ipam.ranges"),
        ({"ranges": "10.0.0.0/24"}, "ipam.ranges is not a list"),
        ({"ranges": [[]]}, r"ipam.ranges\[0\]"),
        ({"ranges": [{"subnet": "10.0.0.0/24"}]}, r"ipam.ranges\[0\] is not a list"),
        ({"ranges": [["10.0.0.0/24"]]}, r"ipam.ranges\[0\]\[0\].subnet is missing"),
        ({"ranges": [[{"rangeStart": "10.0.0.1"}]]}, r"ipam.ranges\[0\]\[0\].subnet is missing"),
        ({"ranges": [[{"subnet": 167772160}]]}, r"ipam.ranges\[0\]\[0\].subnet"),
        ({"ranges": [[{"subnet": "10.0.0.1/24"}]]}, "host bits"),
        ({"subnet": "10.0.0.1/24"}, "ipam.subnet"),
        ({"ranges": [[{"subnet": "10.0.0.0/31"}]]}, "too small"),
        ({"ranges": [[{"subnet": "fd00::/127"}]]}, "too small"),
        ({"ranges": [[{"subnet": "10.0.0.0/24", "gateway": "10.1.0.1"}]]}, r"ipam.ranges\[0\]\[0\].gateway"),
        ({"subnet": "10.0.0.0/24", "gateway": "fd00::1"}, "ipam.gateway"),
        ({"ranges": [[{"subnet": "10.0.0.0/24", "rangeStart": "10.0.1.1"}]]}, "rangeStart"),
        ({"ranges": [[{"subnet": "10.0.0.0/24", "rangeStart": 5}]]}, "rangeStart"),
        ({"ranges": [[{"subnet": "10.0.0.0/24", "rangeEnd": "x"}]]}, "rangeEnd"),
        ({"ranges": [[{"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.9", "rangeEnd": "10.0.0.5"}]]}, "rangeStart"),
        ({"ranges": [[{"subnet": "10.0.0.0/24"}], [{"subnet": "10.0.0.0/25"}]]}, r"ipam.ranges\[1\]\[0\].*overlaps"),
        ({"ranges": [[{"subnet": "10.0.0.0/25"}, {"subnet": "10.0.0.0/24"}]]}, r"ipam.ranges\[0\]\[1\].*overlaps"),
        ({"subnet": "10.0.0.0/24", "ranges": [[{"subnet": "10.0.0.0/25"}]]}, r"ipam.ranges\[0\]\[0\].*overlaps ipam"),
        ({"ranges": [[{"subnet": "10.0.0.0/24"}, {"subnet": "fd00::/64"}]]}, "mixes"),
    ],
)
def test_bad_ranges_are_refused_by_their_field(ipam: dict[str, Any], field: str) -> None:
    """The message says which entry."""
    with pytest.raises(InvalidArgument, match=field):
        range_sets(ipam)


def test_two_parts_of_one_subnet_do_not_overlap() -> None:
    """They may be of one set, or of two."""
    parts = [
        {"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.10", "rangeEnd": "10.0.0.19"},
        {"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.20", "rangeEnd": "10.0.0.29"},
    ]
    assert len(range_sets({"ranges": [parts]})) == 1
    assert len(range_sets({"ranges": [[part] for part in parts]})) == 2


def test_the_runtimes_ranges_are_named_as_its_own() -> None:
    """The reader is not sent to the wrong file."""
    with pytest.raises(InvalidArgument, match=r"runtimeConfig.ipRanges\[0\]\[0\].subnet"):
        range_sets({}, [[{"subnet": "x"}]])
