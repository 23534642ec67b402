"""Ranges of addresses, checked, and the order in which they are tried; pure. Cold."""

from __future__ import annotations

import ipaddress
import itertools

from runtime_core.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


class Range:
    """One subnet with the part of it that is given out."""

    __slots__ = ("first", "gateway", "last", "network")

    def __init__(self, entry: Any, field: str) -> None:
        if not isinstance(entry, dict) or "subnet" not in entry:
            raise InvalidArgument(f"{field}.subnet is missing")
        try:
            self.network = ipaddress.ip_network(entry["subnet"])
        except ValueError as error:
            raise InvalidArgument(f"{field}.subnet: {error}") from None
        if self.network.num_addresses < 4:
            raise InvalidArgument(f"{field}.subnet: {self.network} is too small to give addresses out")
        base = int(self.network.network_address)
        top = base + self.network.num_addresses - (2 if self.network.version == 4 else 1)
        self.first = self._inside(entry, "rangeStart", field, base + 1)
        self.last = self._inside(entry, "rangeEnd", field, top)
        if self.first > self.last:
            raise InvalidArgument(f"{field}: rangeStart is after rangeEnd")
        self.gateway = self._inside(entry, "gateway", field, base + 1)

    def _inside(self, entry: dict[str, Any], key: str, field: str, default: int) -> int:
        if key not in entry or entry[key] is None:
            return default
        try:
            address = ipaddress.ip_address(entry[key])
        except ValueError as error:
            raise InvalidArgument(f"{field}.{key}: {error}") from None
        if address not in self.network:
            raise InvalidArgument(f"{field}.{key}: {address} is not in {self.network}")
        return int(address)

    def __contains__(self, address: int) -> bool:
        return self.first <= address <= self.last

    def text(self, address: int) -> str:
        return str(type(self.network.network_address)(address))


def range_sets(ipam: dict[str, Any], extra: Any = None) -> list[list[Range]]:
    """ipam.ranges with the old ipam.subnet before them; InvalidArgument for overlaps and mixed families."""
    raw: list[Any] = []
    if ipam.get("subnet"):
        raw.append([{k: ipam[k] for k in ("subnet", "rangeStart", "rangeEnd", "gateway") if k in ipam}])
    for source, field in ((extra, "runtimeConfig.ipRanges"), (ipam.get("ranges"), "ipam.ranges")):
        if source is not None and not isinstance(source, list):
            raise InvalidArgument(f"{field} is not a list")
        raw += source or []
    if not raw:
        raise InvalidArgument("ipam.ranges: no range is given")
    sets = []
    for number, entries in enumerate(raw):
        if not isinstance(entries, list) or not entries:
            raise InvalidArgument(f"ipam.ranges[{number}] is not a list of ranges")
        sets.append([Range(entry, f"ipam.ranges[{number}][{place}]") for place, entry in enumerate(entries)])
    _refuse_overlaps([one for group in sets for one in group])
    for number, group in enumerate(sets):
        if len({one.network.version for one in group}) > 1:
            raise InvalidArgument(f"ipam.ranges[{number}] mixes IPv4 and IPv6")
    return sets


def candidates(group: list[Range], last: str) -> Iterator[tuple[Range, int]]:
    """Every address of a range set once, beginning after `last`; never a gateway."""
    spans = list(group)
    start: int | None = None
    if last:
        address = ipaddress.ip_address(last)
        for place, one in enumerate(spans):
            if one.network.version == address.version and int(address) in one:
                spans, start = spans[place:] + spans[:place], int(address) + 1
                break
    gateways = {one.gateway for one in group}
    for place, one in enumerate(spans):
        begin = start if place == 0 and start is not None else one.first
        yield from ((one, address) for address in range(begin, one.last + 1) if address not in gateways)
    if start is not None:
        yield from ((spans[0], address) for address in range(spans[0].first, start) if address not in gateways)


def _refuse_overlaps(ranges: list[Range]) -> None:
    ordered = sorted(ranges, key=lambda one: (one.network.version, one.first))
    for one, following in itertools.pairwise(ordered):
        if one.network.version == following.network.version and following.first <= one.last:
            raise InvalidArgument(f"ipam.ranges: {one.network} and {following.network} overlap")
