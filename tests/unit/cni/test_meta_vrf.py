"""vrf: options refused by their field, and the message that makes a VRF as the kernel has it."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from cni_plugins.meta import vrf
from runtime_core.cni.request import Request
from runtime_core.errors import FailedPrecondition, InvalidArgument
from runtime_core.kernel import netlink
from runtime_core.network.links import Link

_LINK = struct.Struct("=BxHiII")


def _request(**config: Any) -> Request:
    return Request(config={"name": "net", "type": "vrf", **config}, container_id="c1", interface="eth0")


def _link(kind: str, data: list[Any]) -> Link:
    info = [(1, kind), (2, data)]
    return Link(_LINK.pack(0, 0, 7, 1, 0) + netlink.encode([(3, "blue"), (4, 1500), (18, info)]))


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({}, "vrfname: None"),
        ({"vrfname": ""}, "vrfname: ''"),
        ({"vrfname": 5}, "vrfname: 5"),
        ({"vrfname": "a/b"}, "vrfname: 'a/b'"),
        ({"vrfname": "x" * 16}, "vrfname: 'xxxxxxxxxxxxxxxx' is not an interface name"),
        ({"vrfname": "eth0"}, "vrfname: eth0 is the container's interface itself"),
        ({"vrfname": "blue", "table": -1}, "table: -1"),
        ({"vrfname": "blue", "table": 1 << 32}, "table: 4294967296"),
        ({"vrfname": "blue", "table": "5"}, "table: '5'"),
        ({"vrfname": "blue", "table": 254}, "table: 254 is one of the kernel's own"),
    ],
)
def test_a_wrong_value_is_named(config: dict[str, Any], field: str) -> None:
    for call in (vrf.Options, vrf.status):
        with pytest.raises(InvalidArgument) as raised:
            call(_request(**config))
        assert str(raised.value).startswith(field)


@pytest.mark.parametrize("key", ["vrfname", "vrfName"])
def test_either_spelling_of_the_name(key: str) -> None:
    """The reference set's decoder does not mind the case, and its own examples differ in it."""
    options = vrf.Options(_request(**{key: "blue"}))
    assert (options.name, options.table) == ("blue", 0)


def test_without_an_earlier_plugin_it_says_so() -> None:
    for call in (vrf.add, vrf.check):
        with pytest.raises(InvalidArgument, match="^prevResult is missing: vrf"):
            call(_request(vrfname="blue"))


def test_a_vrf_is_made_up_and_with_its_table() -> None:
    message = vrf.vrf_message("blue", 1001)
    found = netlink.decode(netlink.encode(message.attributes))
    info = netlink.decode(found[18])
    assert (message.kind, _LINK.unpack(message.body)[3:]) == (16, (1, 1))
    assert (found[3], info[1]) == (b"blue\0", b"vrf\0")
    assert netlink.decode(info[2]) == {1: struct.pack("=I", 1001)}
    assert vrf.table_of(_link("vrf", [(1, 1001)])) == 1001


@pytest.mark.parametrize(
    ("link", "table", "message"),
    [
        (_link("vrf", [(1, 5)]), 0, ""),
        (_link("vrf", [(1, 5)]), 5, ""),
        (_link("vrf", [(1, 5)]), 6, "table: VRF blue has table 5 already, not 6"),
        (_link("bridge", []), 0, "vrfname: blue of the container is a bridge, not a VRF"),
    ],
)
def test_another_link_of_that_name(link: Link, table: int, message: str) -> None:
    options = vrf.Options(_request(vrfname="blue", table=table))
    if not message:
        vrf._check_vrf(link, options)
        return
    with pytest.raises(FailedPrecondition, match=f"^{message}$"):
        vrf._check_vrf(link, options)


@pytest.mark.parametrize("config", [{}, {"vrfname": 5}, {"vrfname": "a/b"}, {"vrfname": "blue", "table": "bad"}])
@pytest.mark.parametrize("netns", ["", "nowhere"])
def test_del_without_a_namespace_or_with_a_bad_configuration(tmp_path: Any, netns: str, config: dict[str, Any]) -> None:
    path = str(tmp_path / netns) if netns else ""
    vrf.delete(Request(config={"name": "net", **config}, container_id="c1", interface="eth0", netns=path))
    assert list(tmp_path.iterdir()) == []
