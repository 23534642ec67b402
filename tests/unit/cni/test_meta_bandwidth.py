"""bandwidth: limits read from their two places, a wrong one refused by its field, and the numbers that the kernel is told."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from cni_plugins.meta import bandwidth
from runtime_core.cni.request import Request
from runtime_core.errors import InvalidArgument
from runtime_core.kernel import netlink
from runtime_core.network import traffic

_LIMITS = {"ingressRate": 8000, "ingressBurst": 80000, "egressRate": 16000, "egressBurst": 160000}
_TBF_PARMS, _TBF_RATE64 = 1, 4


def _request(**config: Any) -> Request:
    return Request(config={"name": "net", "type": "bandwidth", **config}, container_id="c1", interface="eth0")


@pytest.mark.parametrize(
    ("config", "ingress", "egress"),
    [
        ({}, None, None),
        (_LIMITS, (1000, 10000), (2000, 20000)),
        ({"runtimeConfig": {"bandwidth": _LIMITS}}, (1000, 10000), (2000, 20000)),
        ({"ingressRate": 8000, "ingressBurst": 8000, "runtimeConfig": {"bandwidth": _LIMITS}}, (1000, 1000), None),
        ({"ingressRate": 0, "runtimeConfig": {"bandwidth": _LIMITS}}, None, None),
        ({"ingressRate": 0, "ingressBurst": 0, "egressRate": 8, "egressBurst": 8}, None, (1, 1)),
        ({"runtimeConfig": {}}, None, None),
        ({"runtimeConfig": {"bandwidth": None}}, None, None),
    ],
)
def test_where_limits_come_from(config: dict[str, Any], ingress: tuple[int, int] | None, egress: tuple[int, int] | None) -> None:
    """Bits become bytes, zero is no limit, and one key in the configuration itself stands for all of the capability's."""
    options = bandwidth.Options(_request(**config))
    assert (options.ingress, options.egress) == (ingress, egress)


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"ingressRate": 8000}, "ingressBurst: must be set when ingressRate is"),
        ({"ingressBurst": 8000}, "ingressRate: must be set when ingressBurst is"),
        ({"egressRate": 8000}, "egressBurst: must be set"),
        ({"egressBurst": 8000, "egressRate": 0}, "egressRate: must be set"),
        ({"ingressRate": -1, "ingressBurst": 8}, "ingressRate: -1"),
        ({"ingressRate": 1 << 64, "ingressBurst": 8}, "ingressRate: 18446744073709551616"),
        ({"ingressRate": 7, "ingressBurst": 8}, "ingressRate: 7 bits are less than one byte"),
        ({"ingressRate": 8000, "ingressBurst": ((1 << 32) - 1) * 8}, "ingressBurst: 34359738360"),
        ({"egressRate": "1M", "egressBurst": 8}, "egressRate: '1M'"),
        ({"egressRate": 1.5, "egressBurst": 8}, "egressRate: 1.5"),
        ({"egressRate": True, "egressBurst": 8}, "egressRate: True"),
        ({"runtimeConfig": {"bandwidth": {"egressRate": 8000}}}, "runtimeConfig.bandwidth.egressBurst: must be set"),
        ({"runtimeConfig": {"bandwidth": 5}}, "runtimeConfig.bandwidth: 5 is not an object"),
        ({"runtimeConfig": 5}, "runtimeConfig: 5 is not an object"),
        ({**_LIMITS, "unshapedSubnets": "10.0.0.0/8"}, "unshapedSubnets: '10.0.0.0/8' is not a list"),
        ({**_LIMITS, "unshapedSubnets": ["10.0.0.0/8", "10.0.0.0"]}, "unshapedSubnets[1]: '10.0.0.0'"),
        ({**_LIMITS, "shapedSubnets": ["10.0.0.0/33"]}, "shapedSubnets[0]: '10.0.0.0/33'"),
        ({**_LIMITS, "shapedSubnets": [5]}, "shapedSubnets[0]: 5"),
        ({**_LIMITS, "shapedSubnets": ["::/0"], "unshapedSubnets": ["::/0"]}, "shapedSubnets: cannot be set together"),
    ],
)
def test_a_wrong_value_is_named(config: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        bandwidth.Options(_request(**config))
    assert str(raised.value).startswith(field)


@pytest.mark.parametrize("config", [{}, _LIMITS])
def test_without_an_earlier_plugin_it_says_so(config: dict[str, Any]) -> None:
    for call in (bandwidth.add, bandwidth.check):
        with pytest.raises(InvalidArgument, match=r"^prevResult is missing: bandwidth comes after"):
            call(_request(**config))


@pytest.mark.parametrize(
    ("rate", "burst", "buffer", "limit"),
    [
        (1_000_000, 100_000, 1_562_500, 125_000),  # 0.1 s in ticks of 64 ns; 25 ms more in the queue
        (125_000, 12_500, 1_562_500, 15_625),
        (15, 1_000_000_000, 67_108_863, 1_000_000_000),  # as much as the kernel keeps: 4.29 s
        (10, 1, 67_108_863, 1514),
        (1_000_000, 1, 23_657, 26_514),  # one packet of 1514 bytes
        (12_500_000_000, 1000, 2, 312_501_514),
        (1 << 40, (1 << 32) - 2, 61_031, (1 << 32) - 1),
    ],
)
def test_bucket_and_queue(rate: int, burst: int, buffer: int, limit: int) -> None:
    """As the reference has it, but that nothing overflows and a packet always fits."""
    shape = traffic.Shape(rate, burst, 1500)
    assert (shape.buffer, shape.limit) == (buffer, limit)
    (message,) = shape.messages(7)
    options = netlink.decode(netlink.decode(netlink.encode(message.attributes))[2])
    assert struct.unpack_from("=II", options[_TBF_PARMS], 24) == (limit, buffer)
    assert struct.unpack_from("=I", options[_TBF_PARMS], 8)[0] == min(rate, 0xFFFFFFFF)
    assert options.get(_TBF_RATE64) == (struct.pack("=Q", rate) if rate >= 1 << 32 else None)


@pytest.mark.parametrize(
    ("network", "by_source", "keys"),
    [
        ("10.9.8.7/24", True, [("ffffff00", "0a090800", 12)]),
        ("10.9.8.7/24", False, [("ffffff00", "0a090800", 16)]),
        ("0.0.0.0/0", False, [("00000000", "00000000", 0)]),
        ("fd00::/40", True, [("ffffffff", "fd000000", 8), ("ff000000", "00000000", 12)]),
        ("fd00::/40", False, [("ffffffff", "fd000000", 24), ("ff000000", "00000000", 28)]),
    ],
)
def test_a_network_is_compared_with_the_far_end(network: str, by_source: bool, keys: list[tuple[str, str, int]]) -> None:
    """Source of what a container receives, destination of what it sends, 32 bits at a time."""
    message = traffic.Shape(1000, 1000, 1500, networks=[network], by_source=by_source).messages(7)[-1]
    selector = netlink.decode(netlink.decode(netlink.encode(message.attributes))[2])[5]
    found = [struct.unpack_from("=4s4si", selector, at) for at in range(16, len(selector), 16)]
    assert [(mask.hex(), value.hex(), at) for mask, value, at in found] == keys


def test_devices_of_two_attachments_differ() -> None:
    """Also where network and container read the same when written in one."""
    requests = [
        Request(config={"name": network}, container_id=container_id, interface=interface)
        for network, container_id, interface in (("a", "bc", "eth0"), ("ab", "c", "eth0"), ("a", "bc", "eth1"))
    ]
    names = {bandwidth.device_name(request) for request in requests}
    assert len(names) == 3
    assert {len(name) for name in names} == {15}
