"""sbr: options refused by their field, tables that are free, and the messages of rules and moved routes."""

from __future__ import annotations

import socket
import struct
from typing import Any

import pytest

from cni_plugins.meta import sbr
from runtime_core.cni.request import Request
from runtime_core.errors import InvalidArgument
from runtime_core.kernel import netlink
from runtime_core.network import rules
from runtime_core.network.link_messages import route_message
from runtime_core.network.rules import Route, Rule

_RULE, _ROUTE = "=BBBBBBBBI", "=BBBBBBBBI"


def _request(previous: dict[str, Any] | None = None, **config: Any) -> Request:
    return Request(config={"name": "net", "type": "sbr", **config}, container_id="c1", interface="eth0", previous=previous)


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"table": 0}, "table: 0"),
        ({"table": -5}, "table: -5"),
        ({"table": 1 << 32}, "table: 4294967296"),
        ({"table": "100"}, "table: '100'"),
        ({"table": True}, "table: True"),
        ({"table": 5, "gateways": ["10.0.0.1"]}, "table: gateways and addSourceHints cannot be set together"),
        ({"table": 5, "addSourceHints": True}, "table: gateways and addSourceHints cannot be set together"),
        ({"addSourceHints": "yes"}, "addSourceHints: 'yes'"),
        ({"gateways": "10.0.0.1"}, "gateways: '10.0.0.1' is not a list"),
        ({"gateways": ["10.0.0.1", "x"]}, "gateways[1]: 'x'"),
        ({"gateways": [5]}, "gateways[0]: 5"),
        ({"gateways": ["10.0.0.1", "10.0.0.2"]}, "gateways[1]: '10.0.0.2' is the second of IPv4"),
        ({"gateways": ["fd00::1", "fd00::1"]}, "gateways[1]: 'fd00::1' is the second of IPv6"),
    ],
)
def test_a_wrong_value_is_named(config: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        sbr.Options(_request(**config))
    assert str(raised.value).startswith(field)


@pytest.mark.parametrize(
    ("ip", "gateways", "gateway"),
    [
        ({"address": "10.0.0.2/24", "gateway": "10.0.0.1"}, [], "10.0.0.1"),
        ({"address": "10.0.0.2/24"}, [], ""),
        ({"address": "10.0.0.2/24", "gateway": "10.0.0.1"}, ["fd00::9", "10.0.0.9"], "10.0.0.9"),
        ({"address": "fd00::2/64", "gateway": "fd00:0::1"}, ["10.0.0.9"], "fd00::1"),
        ({"address": "fd00::2/64"}, ["10.0.0.9", "fd00::9"], "fd00::9"),
    ],
)
def test_whose_gateway_it_is(ip: dict[str, Any], gateways: list[str], gateway: str) -> None:
    """The configuration's, of the address's own kind, goes before the one that IPAM gave."""
    assert sbr.Options(_request(gateways=gateways)).gateway(ip) == gateway


def test_what_comes_before_must_have_given_addresses() -> None:
    other = {
        "interfaces": [{"name": "eth1", "sandbox": "/n"}],
        "ips": [{"address": "10.0.0.2/24", "interface": 0}],
        "routes": [],
        "dns": {},
    }
    for call in (sbr.add, sbr.check):
        with pytest.raises(InvalidArgument, match="^prevResult is missing: sbr"):
            call(_request())
        for previous in (other, {**other, "ips": []}):
            with pytest.raises(InvalidArgument, match=r"^prevResult\.ips: none is an address of eth0"):
                call(_request(previous))


@pytest.mark.parametrize(
    ("taken", "first", "table"), [(set(), 100, 100), ({100, 101, 103}, 100, 102), ({99}, 100, 100), ({1, 2}, 1, 3)]
)
def test_the_first_free_table(taken: set[int], first: int, table: int) -> None:
    assert rules.free_table(taken, first) == table


@pytest.mark.parametrize(("source", "table"), [("10.0.0.2", 100), ("10.0.0.2", 300), ("fd00::2", 101)])
def test_a_rule_is_read_as_it_was_written(source: str, table: int) -> None:
    """And the message that takes it away names it by its priority too."""
    message = rules.rule_message(source, table)
    rule = Rule(message.body + netlink.encode([*message.attributes, (6, 32765)]))
    assert (rule.source, rule.table, rule.priority) == (source, table, 32765)
    away = rules.remove_rule_message(rule)
    assert Rule(away.body + netlink.encode(away.attributes)).priority == 32765
    assert (message.kind, away.kind) == (32, 33)


@pytest.mark.parametrize(
    ("header", "attributes"),
    [
        ((2, 0, 24, 0, 100, 0, 0, 1, 0), [(2, bytes(4))]),  # a whole network
        ((2, 0, 32, 0, 0, 0, 0, 6, 0), [(2, bytes(4))]),  # unreachable
        ((2, 32, 32, 0, 100, 0, 0, 1, 0), [(1, bytes(4)), (2, bytes(4))]),  # to an address as well
        ((2, 0, 0, 0, 254, 0, 0, 1, 0), []),
    ],
)
def test_a_rule_of_another_form_is_nobodys(header: tuple[int, ...], attributes: list[Any]) -> None:
    assert Rule(struct.pack(_RULE, *header) + netlink.encode(attributes)).source == ""


def test_a_route_moves_with_all_that_it_has() -> None:
    """Gateway, source, priority and metrics; not what is the kernel's own to say."""
    made = route_message(5, "10.1.0.0/16", "10.0.0.1", source="10.0.0.2", mtu=1400, priority=7)
    route = Route(made.body + netlink.encode([*made.attributes, (12, bytes(32)), (15, 254)]))
    assert (route.index, route.table, route.gateway, str(route.near_end), str(route.destination)) == (
        5, 254, "10.0.0.1", "10.0.0.2", "10.1.0.0/16",
    )  # fmt: skip
    put = route.replace_message(300)
    found = netlink.decode(netlink.encode(put.attributes))
    assert struct.unpack(_ROUTE, put.body)[4] == 0
    assert struct.unpack("=I", found[15]) == (300,)
    assert 12 not in found
    assert {key: found[key] for key in (1, 4, 5, 6, 7, 8)} == {
        1: socket.inet_aton("10.1.0.0"), 4: struct.pack("=I", 5), 5: socket.inet_aton("10.0.0.1"), 6: struct.pack("=I", 7),
        7: socket.inet_aton("10.0.0.2"), 8: netlink.encode([(2, 1400)]),
    }  # fmt: skip
    assert struct.unpack(_ROUTE, route.delete_message().body)[4] == 254


def test_a_route_by_several_gateways_is_of_its_first_link() -> None:
    hops = struct.pack("=HBBI", 8, 0, 0, 9) + struct.pack("=HBBI", 8, 0, 0, 10)
    route = Route(struct.pack(_ROUTE, 2, 0, 0, 0, 254, 3, 0, 1, 0) + netlink.encode([(9, hops)]))
    assert (route.index, str(route.destination)) == (9, "0.0.0.0/0")


@pytest.mark.parametrize("config", [{}, {"table": "bad"}, {"gateways": 5}])
@pytest.mark.parametrize("netns", ["", "/nowhere"])
def test_del_without_a_namespace(tmp_path: Any, netns: str, config: dict[str, Any]) -> None:
    """No error, and no file under its name."""
    path = str(tmp_path / netns.lstrip("/")) if netns else ""
    sbr.delete(Request(config={"name": "net", **config}, container_id="c1", interface="eth0", netns=path))
    assert list(tmp_path.iterdir()) == []
