"""sbr on the kernel: answers leave by the interface that was asked, tables collide with none, DEL leaves no rule."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cni_plugins.meta import sbr
from runtime_core.errors import AlreadyExists, FailedPrecondition, TrivetError
from runtime_core.kernel import netlink
from runtime_core.network import rules
from runtime_core.network.link_messages import veth_message
from runtime_core.network.links import Links
from runtime_core.network.namespace import open_namespace
from runtime_core.testing.tools import require_program
from tests.kernel.cni.meta_pod import HOST, POD, Pod, connected_pod, seconds_to_send


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    with connected_pod(tmp_path) as pod:
        yield pod


def _rules(pod: Pod) -> dict[str, int]:
    with pod.inside() as links:
        return {rule.source: rule.table for rule in rules.rules(links.socket) if rule.source}


def _routes(pod: Pod, interface: str = "eth0") -> set[tuple[int, str, str]]:
    """(table, destination, gateway), without the kernel's own table and link-local networks."""
    with pod.inside() as links:
        link = links.find(interface)
        listed = rules.routes(links.socket)
    return {
        (r.table, str(r.destination), r.gateway)
        for r in listed
        if link is not None and r.index == link.index and r.table != 255 and not r.destination.is_link_local and r.is_unicast
    }


def _inside(pod: Pod, *commands: str) -> None:
    require_program("nsenter", "util-linux")
    require_program("ip", "iproute2")
    for command in commands:
        subprocess.run(["nsenter", f"--net={pod.path}", *command.split()], check=True)


def _moved(v4: int = 100, v6: int = 101, gateways: tuple[str, str] = HOST) -> set[tuple[int, str, str]]:
    return {
        (v4, "10.9.0.0/24", ""), (v4, "0.0.0.0/0", gateways[0]), (v4, "fd09::/64", ""), (v6, "fd09::/64", ""),
        (v6, "::/0", gateways[1]),
    }  # fmt: skip


def test_routes_move_into_tables_by_source(pod: Pod) -> None:
    """One for each address; both kinds of traffic go on passing, and link-local addresses stay usable by all."""
    previous = pod.previous()
    assert sbr.add(pod.request(previous)) == previous
    assert (_rules(pod), _routes(pod)) == ({POD[0]: 100, POD[1]: 101}, _moved())
    with pod.inside() as links:
        far = links.find("eth0")
        assert far is not None
        assert {r.table for r in rules.routes(links.socket) if r.index == far.index and str(r.destination) == "fe80::/64"} == {
            254,
            100,
            101,
        }
    for to in (*POD, *HOST):
        seconds_to_send(pod, to, 10_000)
    sbr.check(pod.request(previous))


def test_the_earlier_plugins_check_is_not_broken(pod: Pod) -> None:
    """It finds its routes in whatever table they are, and misses those that are in none."""
    assert pod.lacks() == set()
    sbr.add(pod.request(pod.previous()))
    assert pod.lacks() == set()
    _inside(pod, "ip route del default table 100")
    assert pod.lacks() == {("0.0.0.0/0", HOST[0])}


def test_two_interfaces_answer_each_by_itself(pod: Pod) -> None:
    """What sbr is for: a second interface in a network of its own, asked from elsewhere, answers by its own gateway."""
    namespace = open_namespace(str(pod.path))
    with netlink.Socket() as sock:
        links = Links(sock)
        port = links.create("vethtwo", veth_message("vethtwo", "net1", namespace=namespace))
        links.configure(port.index, ["10.8.0.1/24", "198.51.100.1/32"], [])
    with pod.inside() as links:
        far = links.find("net1")
        assert far is not None
        links.configure(far.index, ["10.8.0.2/24"], [])
    ips = [{"address": "10.8.0.2/24", "gateway": "10.8.0.1", "interface": 0}]
    previous = {"interfaces": [{"name": "net1", "sandbox": str(pod.path)}], "ips": ips, "routes": [], "dns": {}}
    request = pod.request(previous)
    request.interface = "net1"
    sbr.add(request)
    assert _routes(pod, "net1") == {(100, "10.8.0.0/24", ""), (100, "0.0.0.0/0", "10.8.0.1")}
    assert (254, "0.0.0.0/0", HOST[0]) in _routes(pod)
    with pod.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        assert _way(sender, "10.8.0.2", "198.51.100.1") == "10.8.0.2"
    with pod.inside():
        require_program("ip", "iproute2")
        by_source = subprocess.run(
            ["ip", "route", "get", "198.51.100.1", "from", "10.8.0.2"], capture_output=True, text=True, check=True
        )
        by_default = subprocess.run(["ip", "route", "get", "198.51.100.1"], capture_output=True, text=True, check=True)
    assert "via 10.8.0.1 dev net1" in by_source.stdout
    assert f"via {HOST[0]} dev eth0" in by_default.stdout
    sbr.check(request)
    sbr.delete(request)
    assert _rules(pod) == {}


def _way(sender: socket.socket, source: str, to: str) -> str:
    sender.bind((source, 0))
    sender.connect((to, 9))
    return str(sender.getsockname()[0])


@pytest.mark.parametrize(
    ("before", "v4", "v6"),
    [
        (["ip rule add from 192.0.2.1 table 100"], 101, 102),
        (["ip -6 rule add from fd00::9 table 101"], 100, 102),
        (["ip route add blackhole 192.0.2.0/24 table 100", "ip -6 route add blackhole fd77::/64 table 102"], 101, 103),
    ],
)
def test_a_table_that_is_in_use_is_left_alone(pod: Pod, before: list[str], v4: int, v6: int) -> None:
    """By a rule or by a route, of either kind."""
    _inside(pod, *before)
    sbr.add(pod.request(pod.previous()))
    assert {source: table for source, table in _rules(pod).items() if source in POD} == {POD[0]: v4, POD[1]: v6}


def test_gateways_that_are_configured(pod: Pod) -> None:
    """In the place of those that IPAM gave."""
    config = {"gateways": ["10.9.0.254", "fd09::fe"]}
    previous = sbr.add(pod.request(pod.previous(), **config))
    assert _routes(pod) == _moved(gateways=("10.9.0.254", "fd09::fe"))
    sbr.check(pod.request(previous, **config))
    with pytest.raises(FailedPrecondition, match=r"table 100 of the container lacks the default route by 10\.9\.0\.1$"):
        sbr.check(pod.request(previous))


def test_a_default_route_of_its_own_when_none_was_there(pod: Pod) -> None:
    """An earlier plugin may have made none, or taken it away."""
    _inside(pod, "ip route del default", "ip -6 route del default")
    sbr.add(pod.request(pod.previous()))
    assert _routes(pod) == _moved()


def test_source_hints(pod: Pod) -> None:
    """Who does not choose a source reaches the interface's network, with its address."""
    config = {"addSourceHints": True}
    previous = sbr.add(pod.request(pod.previous(), **config))
    assert _routes(pod) == {*_moved(), (254, "10.9.0.0/24", ""), (254, "fd09::/64", "")}
    for family, to, source in ((socket.AF_INET, HOST[0], POD[0]), (socket.AF_INET6, HOST[1], POD[1])):
        with pod.inside(), socket.socket(family, socket.SOCK_DGRAM) as sender:
            sender.connect((to, 9))
            assert sender.getsockname()[0] == source
    sbr.check(pod.request(previous, **config))
    _inside(pod, "ip route del 10.9.0.0/24 table main")
    with pytest.raises(FailedPrecondition, match=r"lacks the route to the network of 10\.9\.0\.2/24 with that source"):
        sbr.check(pod.request(previous, **config))


def test_a_table_that_is_configured_gets_rules_alone(pod: Pod) -> None:
    before = _routes(pod)
    previous = sbr.add(pod.request(pod.previous(), table=1234))
    assert (_rules(pod), _routes(pod)) == ({POD[0]: 1234, POD[1]: 1234}, before)
    sbr.check(pod.request(previous, table=1234))
    with pytest.raises(FailedPrecondition, match="lacks the rule that chooses a table for"):
        sbr.check(pod.request(previous, table=1235))
    for _time in range(2):
        sbr.delete(pod.request(previous, table=1234))
        assert (_rules(pod), _routes(pod)) == ({}, before)


def test_metrics_and_further_routes_move_too(pod: Pod) -> None:
    """To the table of the address whose network they go by; those by a gateway of none to all of their
    kind, and those without gateway and source to all."""
    _inside(
        pod, "ip addr add 10.7.0.2/24 dev eth0", "ip route add 192.0.2.0/25 via 10.7.0.1 mtu 1300",
        "ip route add 192.0.2.128/25 via 10.9.0.1 metric 7", "ip route add 203.0.113.1 dev eth0",
        "ip route add 203.0.113.2 via 203.0.113.1 onlink dev eth0",
    )  # fmt: skip
    previous = pod.previous()
    previous["ips"].append({"address": "10.7.0.2/24", "interface": 1})
    sbr.add(pod.request(previous))
    assert _routes(pod) == {
        *_moved(), (102, "10.7.0.0/24", ""), (102, "192.0.2.0/25", "10.7.0.1"), (100, "192.0.2.128/25", "10.9.0.1"),
        (102, "fd09::/64", ""), *((table, "203.0.113.1/32", "") for table in (100, 101, 102)),
        *((table, "203.0.113.2/32", "203.0.113.1") for table in (100, 102)),
    }  # fmt: skip
    with pod.inside():
        listed = subprocess.run(["ip", "route", "show", "table", "all"], capture_output=True, text=True, check=True).stdout
    assert "192.0.2.0/25 via 10.7.0.1 dev eth0 table 102 mtu 1300" in listed
    assert "192.0.2.128/25 via 10.9.0.1 dev eth0 table 100 metric 7" in listed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("ip rule del from 10.9.0.2", r"lacks the rule that chooses a table for 10\.9\.0\.2"),
        ("ip -6 rule del from fd09::2", "lacks the rule that chooses a table for fd09::2"),
        ("ip route flush table 100", r"table 100 of the container lacks the default route by 10\.9\.0\.1"),
        ("ip -6 route del default table 101", "table 101 of the container lacks the default route by fd09::1"),
        ("ip link del eth0", "the container has no interface eth0"),
    ],
)
def test_check_sees_what_changed(pod: Pod, change: str, message: str) -> None:
    """And DEL takes away what is left, also when the interface is gone already."""
    previous = sbr.add(pod.request(pod.previous()))
    _inside(pod, change)
    with pytest.raises(TrivetError, match=message):
        sbr.check(pod.request(previous))
    sbr.delete(pod.request(previous))
    assert _rules(pod) == {}
    sbr.delete(pod.request())


@pytest.mark.parametrize("has_result", [True, False])
@pytest.mark.parametrize("config", [{}, {"gateways": 5}])
def test_del_leaves_no_rule_and_no_route(pod: Pod, has_result: bool, config: dict[str, Any]) -> None:
    """Of this interface: another's rules stay. Twice."""
    _inside(pod, "ip rule add from 192.0.2.1 table 100", "ip rule add from 10.9.0.2 table 50")
    previous = sbr.add(pod.request(pod.previous())) if "10.9.0.2" not in _rules(pod) else _replace_rule(pod)
    for _time in range(2):
        sbr.delete(pod.request(previous if has_result else None, **config))
        assert _rules(pod) == {"192.0.2.1": 100, "192.0.2.2": 50}
        assert {table for table, _destination, _gateway in _routes(pod)} <= {254}


def _replace_rule(pod: Pod) -> dict[str, Any]:
    _inside(pod, "ip rule del from 10.9.0.2 table 50", "ip rule add from 192.0.2.2 table 50")
    return sbr.add(pod.request(pod.previous()))


def test_a_second_add_is_refused_and_harms_nothing(pod: Pod) -> None:
    previous = sbr.add(pod.request(pod.previous()))
    with pytest.raises(AlreadyExists, match=r"^prevResult\.ips: the container has a rule for 10\.9\.0\.2 already"):
        sbr.add(pod.request(previous))
    assert (_rules(pod), _routes(pod)) == ({POD[0]: 100, POD[1]: 101}, _moved())
    sbr.check(pod.request(previous))


def test_a_refused_add_leaves_routes_as_they_were(pod: Pod) -> None:
    """Here by a gateway that no route reaches."""
    before = _routes(pod)
    with pytest.raises(TrivetError, match=r"^routing by source, table 100 of 10\.9\.0\.2/24"):
        sbr.add(pod.request(pod.previous(), gateways=["192.0.2.99"]))
    assert (_rules(pod), _routes(pod)) == ({}, before)
    seconds_to_send(pod, POD[0], 10_000)


def test_del_with_a_plain_file_as_namespace(pod: Pod) -> None:
    plain = pod.directory / "plain"
    plain.touch()
    request = pod.request(pod.previous())
    request.netns = str(plain)
    sbr.delete(request)
    assert plain.read_bytes() == b""


def test_gc_and_status_need_nothing(pod: Pod) -> None:
    previous = sbr.add(pod.request(pod.previous()))
    sbr.gc(pod.request(**{"cni.dev/valid-attachments": []}))
    sbr.status(pod.request())
    sbr.check(pod.request(previous))


def test_interfaces_that_come_at_once_get_tables_of_their_own(pod: Pod) -> None:
    """Eight, each by its own thread: who looks for a free table looks alone."""
    namespace = open_namespace(str(pod.path))
    requests = []
    with netlink.Socket() as sock:
        for number in range(8):
            Links(sock).create(f"port{number}", veth_message(f"port{number}", f"net{number}", namespace=namespace))
    with pod.inside() as links:
        for number in range(8):
            far = links.find(f"net{number}")
            assert far is not None
            links.configure(far.index, [f"10.20.{number}.2/24"], [])
            ips = [{"address": f"10.20.{number}.2/24", "gateway": f"10.20.{number}.1"}]
            request = pod.request({"interfaces": [], "ips": ips, "routes": [], "dns": {}})
            request.interface = f"net{number}"
            requests.append(request)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(sbr.add, requests))
    assert sorted(_rules(pod).values()) == list(range(100, 108))
    for request in requests:
        sbr.check(request)
