"""What plugins read from their configuration, whose a link is, and how several steps of a DEL fail."""

from __future__ import annotations

from typing import Any

import pytest

from cni_plugins.links import container_link, ownership
from cni_plugins.links.bridge_options import Options
from cni_plugins.options import link_options
from runtime_core.cni.request import Request
from runtime_core.errors import InvalidArgument, NotFound, Unavailable


def _request(config: dict[str, Any] | None = None, *, container_id: str = "c1", interface: str = "eth0", **more: Any) -> Request:
    document = {"name": "net", "type": "bridge", **(config or {})}
    return Request(config=document, container_id=container_id, interface=interface, **more)


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("eth0", True), ("a", True), ("fifteen-bytes-x", True), ("eth0.5", True), ("ünï", True), ("sixteen-bytes-xx", False),
        ("", False), (".", False), ("..", False), ("a/b", False), ("a:b", False), ("a b", False), ("a\tb", False), ("a\n", False),
        ("a\0", False), ("\udcff", True), ("üüüüüüüü", False),
    ],
)  # fmt: skip
def test_interface_names(name: str, is_one: bool) -> None:
    """As the kernel takes them, by bytes."""
    assert link_options.is_interface_name(name) is is_one


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("02:00:00:00:00:0A", "02:00:00:00:00:0a"),
        ("02-00-00-00-00-0a", "02:00:00:00:00:0a"),
        ("fe:ff:ff:ff:ff:ff", "fe:ff:ff:ff:ff:ff"),
    ],
)
def test_hardware_addresses(text: str, expected: str) -> None:
    """In the one form that the kernel's are compared with."""
    assert link_options.hardware_address(text, "mac") == expected


@pytest.mark.parametrize(
    "value", ["", "x", "02:00:00:00:00", "02:00:00:00:00:0g", "02:00:00:00:00:00:00", "01:00:00:00:00:00", 5, None]
)
def test_hardware_addresses_that_are_none(value: Any) -> None:
    """A group's is none of an interface; the field is named."""
    with pytest.raises(InvalidArgument, match=r"^args\.cni\.mac: "):
        link_options.hardware_address(value, "args.cni.mac")


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([], set()),
        ([{"id": 5}], {5}),
        ([{"minID": 3, "maxID": 5}, {"id": 9}, {"id": 4}], {3, 4, 5, 9}),
        ([{"minID": 3, "maxID": 3, "id": 8}], {3, 8}),
        ([{}], set()),
    ],
)
def test_trunks(entries: list[Any], expected: set[int]) -> None:
    """Ranges and single ones, together."""
    assert Options(_request({"vlanTrunk": entries})).trunk == expected


def test_an_alias_is_of_one_attachment() -> None:
    """Of network, container and interface, also where they are too long for one."""
    for network, container in (("net", "c1"), ("n" * 200, "c" * 200)):
        mine = ownership.link_alias(_request({"name": network}, container_id=container))
        assert len(mine.encode()) <= 255
        assert not ownership.belongs_to_another(mine, _request({"name": network}, container_id=container))
        for other in (
            _request({"name": network + "x"}, container_id=container),
            _request({"name": network}, container_id=container + "x"),
            _request({"name": network}, container_id=container, interface="eth1"),
        ):
            assert ownership.belongs_to_another(mine, other)
            assert ownership.link_alias(other) != mine
    assert not ownership.belongs_to_another("", _request())
    assert not ownership.belongs_to_another("what somebody wrote", _request())


def test_the_hosts_name_is_that_of_one_attachment() -> None:
    """An interface name, the same at each call."""
    first = ownership.host_interface_name(_request())
    assert link_options.is_interface_name(first)
    assert first == ownership.host_interface_name(_request())
    assert first != ownership.host_interface_name(_request(interface="eth1"))


def test_each_step_is_taken_and_the_first_failure_told() -> None:
    """A DEL that cannot do one thing does the others."""
    taken: list[str] = []

    def step(name: str, error: Exception | None = None) -> Any:
        def take() -> None:
            taken.append(name)
            if error is not None:
                raise error

        return take

    with pytest.raises(NotFound, match="second"):
        container_link.run_all(
            step("first"), step("second", NotFound("second")), step("third", Unavailable("third")), step("fourth")
        )
    assert taken == ["first", "second", "third", "fourth"]


@pytest.mark.parametrize(
    ("ip", "expected"),
    [
        ({"address": "10.0.0.9/24"}, "10.0.0.1"),
        ({"address": "10.0.0.9/24", "gateway": "10.0.0.254"}, "10.0.0.254"),
        ({"address": "fd00::9/64"}, "fd00::1"),
        ({"address": "10.0.0.9/32", "gateway": "169.254.1.1"}, "169.254.1.1"),
    ],
)
def test_gateways(ip: dict[str, Any], expected: str) -> None:
    """What IPAM says, or the network's first address."""
    assert container_link.gateway_of(ip) == expected


@pytest.mark.parametrize("address", ["10.0.0.9/32", "10.0.0.1/24", "fd00::1/64", "fd00::9/128"])
def test_no_gateway_where_there_is_no_address_for_it(address: str) -> None:
    """The error has the address."""
    with pytest.raises(InvalidArgument, match=f"ipam: {address}"):
        container_link.gateway_of({"address": address})
