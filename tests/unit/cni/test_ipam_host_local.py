"""host-local by its functions: what ADD gives and refuses, and what DEL, CHECK, GC and STATUS make of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cni_plugins.ipam.host_local import plugin
from cni_plugins.ipam.host_local.leases import Lease, list_leases
from cni_plugins.options.ipam_options import NotReady
from runtime_core.cni.request import Request
from runtime_core.errors import AlreadyExists, InvalidArgument, NotFound, ResourceExhausted, TrivetError

_SMALL = {"ranges": [[{"subnet": "10.0.0.0/29"}]]}  # five addresses to give, .2 to .6


class Pool:
    """One network's directory, and calls on it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def request(self, ipam: dict[str, Any], container: str = "c1", interface: str = "eth0", **more: Any) -> Request:
        args = more.pop("env", {})
        previous = more.pop("previous", None)
        config = {
            "cniVersion": "1.1.0", "name": "net", "ipam": {"type": "host-local", "dataDir": str(self.directory), **ipam}, **more,
        }  # fmt: skip
        return Request(config=config, container_id=container, interface=interface, args=args, previous=previous)

    def add(self, ipam: dict[str, Any], container: str = "c1", interface: str = "eth0", **more: Any) -> list[str]:
        return [ip["address"] for ip in plugin.add(self.request(ipam, container, interface, **more))["ips"]]

    def delete(self, ipam: dict[str, Any], container: str = "c1", interface: str = "eth0", **more: Any) -> None:
        plugin.delete(self.request(ipam, container, interface, **more))

    def taken(self) -> list[str]:
        return [lease.address for lease in list_leases(str(self.directory))]


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return Pool(tmp_path)


def test_a_result_has_address_gateway_routes_and_dns(pool: Pool, tmp_path: Path) -> None:
    """Routes with all that specification 1.1 knows of them; dns from the file that resolvConf names."""
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text(
        "# c\nnameserver 192.0.2.1\nnameserver fd00::53\ndomain d.test\nsearch a.test b.test\noptions ndots:5 rotate\n"
    )
    routes = [
        {"dst": "0.0.0.0/0"},
        {"dst": "10.1.0.0/16", "gw": "10.0.0.9", "mtu": 1400, "advmss": 1300, "priority": 10, "table": 100, "scope": 253},
    ]
    ipam = {"ranges": [[{"subnet": "10.0.0.0/24", "gateway": "10.0.0.9"}], [{"subnet": "fd00::/64"}]], "routes": routes}
    assert plugin.add(pool.request({**ipam, "resolvConf": str(resolv_conf)})) == {
        "ips": [{"address": "10.0.0.1/24", "gateway": "10.0.0.9"}, {"address": "fd00::2/64", "gateway": "fd00::1"}],
        "routes": routes,
        "dns": {
            "nameservers": ["192.0.2.1", "fd00::53"], "domain": "d.test", "search": ["a.test", "b.test"],
            "options": ["ndots:5", "rotate"],
        },
    }  # fmt: skip


def test_addresses_go_round(pool: Pool) -> None:
    """One that was given back is given again last; the gateway is never given."""
    assert [pool.add(_SMALL, f"c{n}")[0] for n in range(3)] == ["10.0.0.2/29", "10.0.0.3/29", "10.0.0.4/29"]
    pool.delete(_SMALL, "c1")
    assert [pool.add(_SMALL, f"d{n}")[0] for n in range(3)] == ["10.0.0.5/29", "10.0.0.6/29", "10.0.0.3/29"]
    with pytest.raises(ResourceExhausted, match=r"ipam.ranges\[0\]: no address of 10.0.0.0/29 is free"):
        pool.add(_SMALL, "d3")


def test_the_last_range_of_a_set_is_followed_by_the_first(pool: Pool) -> None:
    """Ranges of one set are one pool."""
    ipam = {"ranges": [[{"subnet": "10.0.0.0/30"}, {"subnet": "10.0.1.0/30"}]]}
    assert [pool.add(ipam, f"c{n}")[0] for n in range(2)] == ["10.0.0.2/30", "10.0.1.2/30"]
    pool.delete(ipam, "c0")
    assert pool.add(ipam, "c2") == ["10.0.0.2/30"]


def test_a_gateway_of_another_set_is_not_given(pool: Pool) -> None:
    """Two parts of one subnet, of which one holds the other's gateway."""
    ipam = {
        "ranges": [
            [{"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.9", "rangeEnd": "10.0.0.11", "gateway": "10.0.0.20"}],
            [{"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.20", "rangeEnd": "10.0.0.29", "gateway": "10.0.0.9"}],
        ]
    }
    assert pool.add(ipam) == ["10.0.0.10/24", "10.0.0.21/24"]


@pytest.mark.parametrize(
    "more",
    [
        {"runtimeConfig": {"ips": ["10.0.0.5"]}},
        {"runtimeConfig": {"ips": ["10.0.0.5/29"]}},
        {"args": {"cni": {"ips": ["10.0.0.5"]}}},
        {"env": {"IP": "10.0.0.5"}},
        {"env": {"IP": "10.0.0.5/24"}, "runtimeConfig": {"ips": ["10.0.0.5"]}},
    ],
)
def test_an_address_may_be_asked_for(pool: Pool, more: dict[str, Any]) -> None:
    """By each of the three ways, with a prefix length or without; it comes with the subnet's."""
    assert pool.add(_SMALL, **more) == ["10.0.0.5/29"]
    with pytest.raises(AlreadyExists, match=r"ips: 10.0.0.5 is taken"):
        pool.add(_SMALL, "c2", **more)
    assert pool.taken() == ["10.0.0.5"]


def test_one_of_each_family_may_be_asked_for(pool: Pool) -> None:
    """And a set of which none is asked for gives its next."""
    ipam = {"ranges": [[{"subnet": "10.0.0.0/24"}], [{"subnet": "fd00::/64"}], [{"subnet": "10.1.0.0/24"}]]}
    assert pool.add(ipam, runtimeConfig={"ips": ["fd00::42", "10.0.0.42"]}) == ["10.0.0.42/24", "fd00::42/64", "10.1.0.2/24"]


def test_the_runtime_may_give_ranges(pool: Pool) -> None:
    """They come before the configuration's own."""
    assert pool.add(_SMALL, runtimeConfig={"ipRanges": [[{"subnet": "10.9.0.0/24"}]]}) == ["10.9.0.2/24", "10.0.0.2/29"]
    assert pool.add({}, "c2", runtimeConfig={"ipRanges": [[{"subnet": "10.9.0.0/24"}]]}) == ["10.9.0.3/24"]


@pytest.mark.parametrize(
    ("ipam", "more", "message"),
    [
        ({}, {}, "ipam.ranges: no range is given"),
        (_SMALL, {"runtimeConfig": {"ips": ["10.0.0.1"]}}, "runtimeConfig.ips: 10.0.0.1 is a gateway"),
        (_SMALL, {"runtimeConfig": {"ips": ["10.9.0.1"]}}, "runtimeConfig.ips: 10.9.0.1 is in no range of network net"),
        (_SMALL, {"runtimeConfig": {"ips": ["10.0.0.7"]}}, "runtimeConfig.ips: 10.0.0.7 is in no range"),
        (_SMALL, {"runtimeConfig": {"ips": ["10.0.0.2", "10.0.0.3"]}}, "10.0.0.3: each range set gives one address only"),
        (_SMALL, {"runtimeConfig": {"ips": "10.0.0.2"}}, "runtimeConfig.ips"),
        (_SMALL, {"runtimeConfig": {"ips": [5]}}, "runtimeConfig.ips"),
        (_SMALL, {"runtimeConfig": {"ipRanges": {}}}, "runtimeConfig.ipRanges"),
        (_SMALL, {"args": {"cni": {"ips": ["x"]}}}, "args.cni.ips: 'x' is not an address"),
        (_SMALL, {"args": {"cni": []}, "env": {"IP": "x"}}, "CNI_ARGS IP: 'x' is not an address"),
        (_SMALL, {"args": {"cni": "x"}}, "args.cni"),
        (_SMALL, {"env": {"FOO": "bar", "IP": "10.0.0.2"}}, "CNI_ARGS: FOO is unknown here"),
        (_SMALL, {"env": {"FOO": "bar", "IgnoreUnknown": "0"}}, "CNI_ARGS: FOO is unknown here"),
        ({**_SMALL, "routes": {}}, {}, "ipam.routes is not a list"),
        ({**_SMALL, "routes": ["0.0.0.0/0"]}, {}, r"ipam.routes\[0\] is not an object"),
        ({**_SMALL, "routes": [{"dst": "0.0.0.0/0"}, {}]}, {}, r"ipam.routes\[1\].dst"),
        ({**_SMALL, "routes": [{"dst": "0.0.0.0/0", "gw": "10.0.0.0/8"}]}, {}, r"ipam.routes\[0\].gw"),
        ({**_SMALL, "routes": [{"dst": "0.0.0.0/0", "mtu": "1400"}]}, {}, r"ipam.routes\[0\].mtu"),
        ({**_SMALL, "routes": [{"dst": "0.0.0.0/0", "table": True}]}, {}, r"ipam.routes\[0\].table"),
        ({**_SMALL, "resolvConf": "/nowhere"}, {}, "ipam.resolvConf: '/nowhere' is not a file"),
        ({**_SMALL, "resolvConf": "/"}, {}, "ipam.resolvConf: '/' is not a file"),
        ({**_SMALL, "resolvConf": []}, {}, "ipam.resolvConf"),
        ({**_SMALL, "dataDir": 5}, {}, "ipam.dataDir"),
        (
            {"ranges": [[{"subnet": "10.0.0.0/29"}], [{"subnet": "10.1.0.0/29"}]]},
            {"cniVersion": "0.2.0"},
            "cniVersion 0.2.0 has one address of each family",
        ),
    ],
)
def test_a_refusal_names_the_field_and_takes_nothing(
    pool: Pool, ipam: dict[str, Any], more: dict[str, Any], message: str
) -> None:
    """Not an address stays behind."""
    with pytest.raises(InvalidArgument, match=message):
        pool.add(ipam, **more)
    assert pool.taken() == []


@pytest.mark.parametrize(
    "env", [{"MAC": "02:00:00:00:00:01"}, {"FOO": "bar", "IgnoreUnknown": "1"}, {"X": "", "IgnoreUnknown": "true"}]
)
def test_arguments_of_others_are_let_pass(pool: Pool, env: dict[str, str]) -> None:
    """The hardware address without a word, what is unknown with IgnoreUnknown."""
    assert pool.add(_SMALL, env=env) == ["10.0.0.2/29"]


def test_all_or_nothing(pool: Pool) -> None:
    """With the second range set exhausted, the first one's address is not kept."""
    ipam = {"ranges": [[{"subnet": "10.0.0.0/24"}], [{"subnet": "10.1.0.0/30"}]]}
    pool.add(ipam)
    with pytest.raises(ResourceExhausted, match=r"ipam.ranges\[1\]"):
        pool.add(ipam, "c2")
    assert pool.taken() == ["10.0.0.2", "10.1.0.2"]


def test_a_second_add_is_refused_and_keeps_the_first(pool: Pool) -> None:
    """As with the reference plugin; another interface of the container is another attachment."""
    pool.add(_SMALL)
    with pytest.raises(AlreadyExists, match="eth0 of container c1 has 10.0.0.2 already"):
        pool.add(_SMALL)
    with pytest.raises(AlreadyExists, match="eth0 of container c1 has 10.0.0.2 already"):
        pool.add(_SMALL, runtimeConfig={"ips": ["10.0.0.4"]})
    assert pool.add(_SMALL, interface="eth1") == ["10.0.0.3/29"]
    pool.delete(_SMALL)
    assert list_leases(str(pool.directory)) == [Lease("net", "10.0.0.3", "c1", "eth1")]
    assert pool.add(_SMALL) == ["10.0.0.4/29"]


@pytest.mark.parametrize(
    "changed",
    [
        {}, {"ranges": []}, {"ranges": 5, "routes": 5, "resolvConf": 5}, {"subnet": "garbage"},
        {"ranges": [[{"subnet": "192.168.0.0/24"}]]},
    ],
)  # fmt: skip
def test_delete_needs_no_valid_configuration(pool: Pool, changed: dict[str, Any]) -> None:
    """Twice, and with arguments and capabilities that ADD would refuse."""
    pool.add({"ranges": [[{"subnet": "10.0.0.0/29"}], [{"subnet": "fd00::/64"}]]})
    for _time in range(2):
        pool.delete(changed, env={"FOO": "bar"}, runtimeConfig={"ips": 5}, args={"cni": 7})
        assert pool.taken() == []


def test_delete_makes_nothing(pool: Pool) -> None:
    """Where nothing was ever given out, not even the directory."""
    pool.delete(_SMALL)
    plugin.gc(pool.request(_SMALL, **{"cni.dev/valid-attachments": []}))
    plugin.status(pool.request(_SMALL))
    assert list(pool.directory.iterdir()) == []


def test_check_knows_whose_an_address_is(pool: Pool) -> None:
    """Of the addresses in its ranges; those of others in the chain are not its own."""
    pool.add(_SMALL)
    pool.add(_SMALL, "c2")
    ips = [{"address": "10.0.0.2/29"}, {"address": "192.168.0.1/24"}]
    plugin.check(pool.request(_SMALL, previous={"ips": ips}))
    for container, previous, message in (
        ("c2", {"ips": ips}, "10.0.0.2 is not reserved for container c2"),
        ("c1", {"ips": [{"address": "10.0.0.6/29"}]}, "10.0.0.6 is not reserved"),
        ("c3", None, "no address is reserved for eth0 of container c3"),
    ):
        with pytest.raises(NotFound, match=message):
            plugin.check(pool.request(_SMALL, container, previous=previous))


def test_gc_releases_what_the_runtime_does_not_know(pool: Pool) -> None:
    """By container and interface; without the list nothing is released."""
    for container, interface in (("c1", "eth0"), ("c1", "eth1"), ("c2", "eth0")):
        pool.add(_SMALL, container, interface)
    plugin.gc(pool.request({}))
    assert pool.taken() == ["10.0.0.2", "10.0.0.3", "10.0.0.4"]
    plugin.gc(pool.request({}, **{"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth1"}]}))
    assert pool.taken() == ["10.0.0.3"]
    plugin.gc(pool.request({}, **{"cni.dev/valid-attachments": []}))
    assert pool.taken() == []


@pytest.mark.parametrize(
    ("ipam", "code", "message"),
    [
        ({}, 50, "ipam.ranges: no range is given"),
        ({"ranges": []}, 50, "ipam.ranges: no range is given"),
        ({"ranges": [[{"subnet": "10.0.0.0/24"}], [{"subnet": "10.0.0.0/25"}]]}, 7, "overlaps"),
        ({**_SMALL, "resolvConf": "/nowhere"}, 7, "ipam.resolvConf"),
        ({"subnet": "10.0.0.0/30"}, 50, r"ipam.ranges\[0\]: no address of 10.0.0.0/30 is free"),
    ],
)
def test_status_says_what_add_would_refuse(pool: Pool, ipam: dict[str, Any], code: int, message: str) -> None:
    """Code 50 of the specification where the configuration is right and there is nothing to give."""
    plugin.status(pool.request(_SMALL))
    pool.add({"subnet": "10.0.0.0/30"})
    with pytest.raises(TrivetError, match=message) as caught:
        plugin.status(pool.request(ipam))
    assert getattr(caught.value, "code", caught.value.cni_code) == code
    assert isinstance(caught.value, NotReady) == (code == 50)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b"])
def test_a_network_is_one_directory(pool: Pool, name: str) -> None:
    """Nothing is written outside of dataDir."""
    with pytest.raises(InvalidArgument, match="name"):
        pool.add(_SMALL, name=name)
    assert list(pool.directory.iterdir()) == []


def test_leases_are_listed_by_network(pool: Pool) -> None:
    """Directories that are no network's are left as they are."""
    pool.add(_SMALL, name="other")
    pool.add({"ranges": [[{"subnet": "fd00::/64"}]]}, "c2", "net1")
    (pool.directory / "foreign").mkdir()
    assert list_leases(str(pool.directory)) == [Lease("net", "fd00::2", "c2", "net1"), Lease("other", "10.0.0.2", "c1", "eth0")]
    assert list((pool.directory / "foreign").iterdir()) == []
    assert list_leases(str(pool.directory / "absent")) == []
