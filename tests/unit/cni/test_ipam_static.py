"""static: the addresses that are said, in the reference plugin's order of precedence, or a refusal by the field."""

from __future__ import annotations

from typing import Any

import pytest

from cni_plugins.ipam import static
from runtime_core.cni.request import Request
from runtime_core.errors import InvalidArgument, NotFound

_ADDRESSES = [{"address": "10.0.0.5/24", "gateway": "10.0.0.1"}, {"address": "fd00::5/64"}]
_IPAM = {"addresses": _ADDRESSES}


def _request(ipam: dict[str, Any], **more: Any) -> Request:
    env, previous = more.pop("env", {}), more.pop("previous", None)
    config = {"cniVersion": "1.1.0", "name": "net", "ipam": {"type": "static", **ipam}, **more}
    return Request(config=config, container_id="c1", interface="eth0", args=env, previous=previous)


def _add(ipam: dict[str, Any], **more: Any) -> list[tuple[str, str]]:
    return [(ip["address"], ip.get("gateway", "")) for ip in static.add(_request(ipam, **more))["ips"]]


def test_a_result_has_what_is_configured() -> None:
    """Addresses, routes and dns as they are said."""
    routes = [{"dst": "0.0.0.0/0"}, {"dst": "10.5.0.0/16", "gw": "10.0.0.9", "mtu": 1400, "scope": 253}]
    dns = {"nameservers": ["192.0.2.1"], "domain": "d.test", "search": ["a.test"], "options": ["rotate"]}
    assert static.add(_request({**_IPAM, "routes": routes, "dns": dns})) == {
        "ips": [{"address": "10.0.0.5/24", "gateway": "10.0.0.1"}, {"address": "fd00::5/64"}], "routes": routes, "dns": dns,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("more", "ips"),
    [
        ({}, [("10.0.0.5/24", "10.0.0.1"), ("fd00::5/64", "")]),
        ({"env": {"IP": "10.1.0.5/24"}}, [("10.0.0.5/24", "10.0.0.1"), ("fd00::5/64", ""), ("10.1.0.5/24", "")]),
        (
            {"env": {"IP": "10.1.0.5/24, 10.2.0.5/24", "GATEWAY": "10.1.0.1,10.0.0.254"}},
            [("10.0.0.5/24", "10.0.0.1"), ("fd00::5/64", ""), ("10.1.0.5/24", "10.1.0.1"), ("10.2.0.5/24", "")],
        ),
        ({"env": {"GATEWAY": "fd00::1"}}, [("10.0.0.5/24", "10.0.0.1"), ("fd00::5/64", "")]),
        ({"args": {"cni": {"ips": ["10.3.0.5/24"]}}, "env": {"IP": "10.1.0.5/24"}}, [("10.3.0.5/24", "")]),
        ({"runtimeConfig": {"ips": ["10.4.0.5/24"]}, "args": {"cni": {"ips": ["10.3.0.5/24"]}}}, [("10.4.0.5/24", "")]),
        ({"env": {"MAC": "02:00:00:00:00:01"}}, [("10.0.0.5/24", "10.0.0.1"), ("fd00::5/64", "")]),
        ({"env": {"K": "v", "IgnoreUnknown": "1"}}, [("10.0.0.5/24", "10.0.0.1"), ("fd00::5/64", "")]),
    ],
)
def test_who_says_the_addresses(more: dict[str, Any], ips: list[tuple[str, str]]) -> None:
    """The environment adds to the configuration, args.cni stands in its place, the capability in that of all."""
    assert _add(_IPAM, **more) == ips


def test_a_gateway_may_lie_outside_the_subnet() -> None:
    """As where a node routes single addresses; and no address at all is no error."""
    assert _add({"addresses": [{"address": "10.0.0.5/32", "gateway": "169.254.1.1"}]}) == [("10.0.0.5/32", "169.254.1.1")]
    assert _add({}) == []


@pytest.mark.parametrize(
    ("ipam", "more", "message"),
    [
        ({"addresses": {}}, {}, "ipam.addresses is not a list"),
        ({"addresses": ["10.0.0.5/24"]}, {}, r"ipam.addresses\[0\] is not an object"),
        ({"addresses": [{}]}, {}, r"ipam.addresses\[0\].address"),
        ({"addresses": [{"address": "10.0.0.5"}]}, {}, r"ipam.addresses\[0\].address: '10.0.0.5' lacks its prefix length"),
        ({"addresses": [{"address": "10.0.0.5/33"}]}, {}, r"ipam.addresses\[0\].address"),
        ({"addresses": [_ADDRESSES[0], {"address": 5}]}, {}, r"ipam.addresses\[1\].address"),
        ({"addresses": [{"address": "10.0.0.5/24", "gateway": "10.0.0.1/24"}]}, {}, r"ipam.addresses\[0\].gateway"),
        ({"addresses": [{"address": "10.0.0.5/24", "gateway": "fd00::1"}]}, {}, r"ipam.addresses\[0\].gateway"),
        (_IPAM, {"env": {"IP": "10.0.0.6"}}, "CNI_ARGS IP: '10.0.0.6' lacks"),
        (_IPAM, {"env": {"GATEWAY": "x"}}, "CNI_ARGS GATEWAY"),
        (_IPAM, {"env": {"K": "v"}}, "CNI_ARGS: K is unknown"),
        (_IPAM, {"args": {"cni": {"ips": ["10.0.0.6"]}}}, "args.cni.ips"),
        (_IPAM, {"runtimeConfig": {"ips": ["x/24"]}}, "runtimeConfig.ips"),
        ({**_IPAM, "routes": [{"dst": "x"}]}, {}, r"ipam.routes\[0\].dst"),
        ({**_IPAM, "dns": []}, {}, "ipam.dns is not an object"),
        ({**_IPAM, "dns": {"nameservers": "192.0.2.1"}}, {}, "ipam.dns.nameservers"),
        ({**_IPAM, "dns": {"domain": 5}}, {}, "ipam.dns.domain"),
        ({"addresses": [_ADDRESSES[0], {"address": "10.1.0.5/24"}]}, {"cniVersion": "0.2.0"}, "one address of each family"),
    ],
)
def test_a_refusal_names_the_field(ipam: dict[str, Any], more: dict[str, Any], message: str) -> None:
    """STATUS says beforehand what ADD would."""
    for verb in (static.add, static.status):
        with pytest.raises(InvalidArgument, match=message):
            verb(_request(ipam, **dict(more)))


def test_check_compares_with_the_result() -> None:
    """Addresses and gateways of the configuration have to be in it."""
    result = static.add(_request(_IPAM))
    static.check(_request(_IPAM, previous=result))
    static.check(_request({"addresses": []}, previous=result))
    with pytest.raises(NotFound, match="10.0.0.9 is missing"):
        static.check(_request({"addresses": [{"address": "10.0.0.9/24"}]}, previous=result))
    with pytest.raises(NotFound, match="the gateway of 10.0.0.5 is not 10.0.0.254"):
        static.check(_request({"addresses": [{"address": "10.0.0.5/24", "gateway": "10.0.0.254"}]}, previous=result))
    with pytest.raises(InvalidArgument, match="prevResult is missing"):
        static.check(_request(_IPAM))


def test_nothing_is_kept() -> None:
    """DEL and GC succeed with whatever configuration."""
    for verb in (static.delete, static.gc):
        verb(_request({"addresses": 5}, env={"K": "v"}))
