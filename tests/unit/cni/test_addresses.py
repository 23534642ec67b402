"""The one grammar of addresses: what Python's reads beyond CNI's is refused, and what is meant is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from runtime_core.cni import addresses
from runtime_core.errors import InvalidArgument


@pytest.mark.parametrize(
    ("grammar", "text", "read"),
    [
        (addresses.address, "10.0.0.1", "10.0.0.1"),
        (addresses.address, "FD00::1", "fd00::1"),
        (addresses.interface, "10.0.0.1/24", "10.0.0.1/24"),
        (addresses.interface, "fd00::1", "fd00::1/128"),
        (addresses.network, "0.0.0.0/0", "0.0.0.0/0"),
        (addresses.network, "fd00::/64", "fd00::/64"),
    ],
)
def test_what_is_read(grammar: Callable[[Any, str], object], text: str, read: str) -> None:
    assert str(grammar(text, "field")) == read


_BAD: list[Any] = [
    "",
    "x",
    5,
    None,
    [],
    True,
    "10.0.0.1\0",
    "10.0.0.١",
    "fe80::1%eth0",
    " 10.0.0.1",
    "10.0.0.01",
    "\ud800",
    "1" * 5000,
]


@pytest.mark.parametrize("text", _BAD)
@pytest.mark.parametrize("grammar", [addresses.address, addresses.interface, addresses.network])
def test_what_is_none(grammar: Callable[[Any, str], object], text: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^field: .* is not an address$"):
        grammar(text, "field")


@pytest.mark.parametrize(
    "text", ["10.0.0.1/33", "10.0.0.1/٢٤", "10.0.0.1/255.255.255.0", "10.0.0.1/", "/24", "10.0.0.1/24/1", "fe80::1%x/64"]
)
def test_a_length_that_is_none(text: str) -> None:
    with pytest.raises(InvalidArgument, match="is not an address"):
        addresses.interface(text, "field")


@pytest.mark.parametrize(
    ("grammar", "text", "meant"),
    [
        (addresses.address, "::ffff:10.66.1.1", "10.66.1.1"),
        (addresses.interface, "::ffff:10.66.1.1/120", "10.66.1.1/24"),
        (addresses.network, "::ffff:10.66.1.0/120", "10.66.1.0/24"),
        (addresses.interface, "::ffff:a42:101/64", "10.66.1.1"),
    ],
)
def test_an_ipv4_address_in_an_ipv6_one(grammar: Callable[[Any, str], object], text: str, meant: str) -> None:
    with pytest.raises(InvalidArgument, match=f"is an IPv4 address written as IPv6: write {meant}$"):
        grammar(text, "field")


def test_a_network_has_no_host_bits() -> None:
    with pytest.raises(InvalidArgument, match="10.0.0.1/24 has host bits set"):
        addresses.network("10.0.0.1/24", "field")
