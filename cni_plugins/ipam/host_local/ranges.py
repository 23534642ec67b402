"""Ranges of addresses, checked, and the order in which they are searched; pure. Cold."""

from __future__ import annotations

import itertools

from cni_plugins.ipam.host_local.address_key import address_to_key, next_key
from runtime_core.cni import addresses
from runtime_core.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_KEYS = ("subnet", "rangeStart", "rangeEnd", "gateway")


class Range:
    """One subnet with the part of it that is given out; `first`, `last` and `gateway` are keys, `field` is where it stands."""

    __slots__ = ("field", "first", "gateway", "gateway_text", "last", "network")

    def __init__(self, entry: Any, field: str) -> None:
        if not isinstance(entry, dict) or not entry.get("subnet"):
            raise InvalidArgument(f"{field}.subnet is missing")
        self.field = field
        self.network = addresses.network(entry["subnet"], f"{field}.subnet")
        if self.network.num_addresses < 4:
            raise InvalidArgument(f"{field}.subnet: {self.network} is too small to give addresses out")
        # An IPv6 network has no broadcast address.
        top = self.network[-2] if self.network.version == 4 else self.network[-1]
        self.first = address_to_key(self._inside(entry, "rangeStart", field, self.network[1]))
        self.last = address_to_key(self._inside(entry, "rangeEnd", field, top))
        if self.first > self.last:
            raise InvalidArgument(f"{field}: rangeStart is after rangeEnd")
        gateway = self._inside(entry, "gateway", field, self.network[1])
        self.gateway, self.gateway_text = address_to_key(gateway), str(gateway)

    def _inside(self, entry: dict[str, Any], name: str, field: str, default: Any) -> Any:
        if entry.get(name) in (None, ""):
            return default
        address = addresses.address(entry[name], f"{field}.{name}")
        if address not in self.network:
            raise InvalidArgument(f"{field}.{name}: {address} is not in {self.network}")
        return address

    def __contains__(self, key: bytes) -> bool:
        return self.first <= key <= self.last


def range_sets(ipam: dict[str, Any], extra: Any = None) -> list[list[Range]]:
    """runtimeConfig.ipRanges (`extra`), then the old ipam.subnet, then ipam.ranges.

    InvalidArgument, naming the entry, for overlaps and mixed families, and when there is none at all.
    """
    raw = _entries(extra, "runtimeConfig.ipRanges")
    if ipam.get("subnet"):
        raw.append(("ipam", [{name: ipam[name] for name in _KEYS if name in ipam}]))
    raw += _entries(ipam.get("ranges"), "ipam.ranges")
    if not raw:
        raise InvalidArgument("ipam.ranges: no range is given")
    sets: list[list[Range]] = []
    seen: list[tuple[str, Range]] = []
    for field, entries in raw:
        range_set = []
        for place, entry in enumerate(entries):
            name = field if field == "ipam" else f"{field}[{place}]"
            range_set.append(Range(entry, name))
            seen.append((name, range_set[-1]))
        if len({address_range.network.version for address_range in range_set}) > 1:
            raise InvalidArgument(f"{field} mixes IPv4 and IPv6")
        sets.append(range_set)
    _refuse_overlaps(seen)
    return sets


def search_order(range_set: list[Range], last: bytes) -> list[tuple[Range, bytes, bytes]]:
    """(range, first, last) in the order of the search: all of the set once, beginning behind `last`."""
    for place, address_range in enumerate(range_set):
        if last in address_range:
            others = range_set[place + 1 :] + range_set[:place]
            rest = [(address_range, next_key(last), address_range.last)] if last < address_range.last else []
            return [*rest, *((other, other.first, other.last) for other in others), (address_range, address_range.first, last)]
    return [(address_range, address_range.first, address_range.last) for address_range in range_set]


def _entries(value: Any, field: str) -> list[tuple[str, list[Any]]]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidArgument(f"{field} is not a list")
    for number, entries in enumerate(value):
        if not isinstance(entries, list) or not entries:
            raise InvalidArgument(f"{field}[{number}] is not a list of ranges")
    return [(f"{field}[{number}]", entries) for number, entries in enumerate(value)]


def _refuse_overlaps(ranges: list[tuple[str, Range]]) -> None:
    ordered = sorted(ranges, key=lambda named: (named[1].first, named[1].last))
    for before, behind in itertools.pairwise(ordered):
        if behind[1].first <= before[1].last:
            address_range, other = sorted((before, behind), key=ranges.index)
            raise InvalidArgument(f"{other[0]}: {other[1].network} overlaps {address_range[0]}, {address_range[1].network}")
