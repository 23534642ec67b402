"""The same configuration through the reference's chained plugins and through ours: qdiscs, rules, routes, settings, results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from e2e.peers.build import build
from runtime_core.testing.tools import require_program
from tests.kernel.cni.meta_pod import Pod, connected_pod, links_of_node, seconds_to_send

pytestmark = pytest.mark.timeout(1800)  # the first run compiles

_ROOT = Path(__file__).parents[2]
_REFERENCE = ("bandwidth", "tuning", "sbr")
_LIMITS = {"ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 16_000_000, "egressBurst": 1_600_000}
_BURST_OF_KUBERNETES = (1 << 31) - 1
_MAC = "02:00:00:00:00:07"
_SETTINGS = {"mac": _MAC, "mtu": 1400, "promisc": True, "allmulti": True, "txQLen": 77}
_SYSCTLS = {"net.ipv4.conf.IFNAME.arp_filter": "1", "net.core.somaxconn": "333", "net.ipv4.ip_local_port_range": "20000\t30000"}

_SCENARIOS: dict[str, dict[str, Any]] = {
    "bandwidth": {"type": "bandwidth", **_LIMITS},
    "bandwidth, in": {"type": "bandwidth", "ingressRate": 1_000_000, "ingressBurst": 123_456},
    "bandwidth, out": {"type": "bandwidth", "egressRate": 1_000_003, "egressBurst": 200_008},
    "bandwidth, fast": {"type": "bandwidth", "ingressRate": 40_000_000_000, "ingressBurst": _BURST_OF_KUBERNETES},
    "bandwidth by the runtime": {"type": "bandwidth", "runtimeConfig": {"bandwidth": _LIMITS}},
    "bandwidth, configuration and runtime": {
        "type": "bandwidth", "ingressRate": 1_000_000, "ingressBurst": 1_000_000, "runtimeConfig": {"bandwidth": _LIMITS},
    },
    "bandwidth without limits": {"type": "bandwidth", "ingressRate": 0, "ingressBurst": 0, "egressRate": 0, "egressBurst": 0},
    "tuning": {"type": "tuning", **_SETTINGS, "sysctl": _SYSCTLS},
    "tuning, mac": {"type": "tuning", "mac": _MAC},
    "tuning, runtime's mac": {"type": "tuning", "mac": "02:00:00:00:00:08", "runtimeConfig": {"mac": _MAC}},
    "tuning, mac of args": {"type": "tuning", "runtimeConfig": {"mac": "02:00:00:00:00:08"}, "args": {"cni": {"mac": _MAC}}},
    "tuning, args": {
        "type": "tuning", **_SETTINGS, "args": {"cni": {"mtu": 1300, "promisc": False, "allmulti": False, "txQLen": 5}},
    },
    "tuning, allmulti off": {"type": "tuning", "allmulti": False, "txQLen": 0},
    "tuning, sysctls": {"type": "tuning", "sysctl": _SYSCTLS},
    "tuning, sysctls of args": {"type": "tuning", "sysctl": {}, "args": {"cni": {"sysctl": {"net/core/somaxconn": "55"}}}},
    "tuning nothing": {"type": "tuning"},
    "sbr": {"type": "sbr"},
    "sbr with a table": {"type": "sbr", "table": 1234},
    "sbr, a table in use": {"type": "sbr", "before": "ip rule add from 192.0.2.1 table 100"},
    "sbr, no default route": {"type": "sbr", "before": "ip route del default"},
    "sbr, more routes": {"type": "sbr", "before": "ip route add 192.0.2.0/24 via 10.9.0.1 mtu 1300"},
}  # fmt: skip


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Where the reference plugins and ours lie."""
    require_program("go", "golang")
    for program in ("ip", "tc"):
        require_program(program, "iproute2")
    require_program("nsenter", "util-linux")
    theirs = tmp_path_factory.mktemp("reference")
    for name in _REFERENCE:
        (theirs / name).symlink_to(build(name))
    ours = tmp_path_factory.mktemp("ours")
    command = [sys.executable, "-m", "cni_plugins", "install", "--bin-dir", str(ours), "--no-service"]
    subprocess.run(command, cwd=_ROOT, check=True, capture_output=True)
    return theirs, ours


@pytest.fixture(params=_SCENARIOS)
def scenario(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"cniVersion": "1.1.0", "name": "net", **_SCENARIOS[request.param]}


def test_the_same(directories: tuple[Path, Path], scenario: dict[str, Any], tmp_path: Path) -> None:
    """After ADD; each set's CHECK accepts what it made; after DEL nothing of either is on the node."""
    theirs, ours = (_life(directory, scenario, tmp_path / directory.name) for directory in directories)
    assert ours == theirs


def test_each_checks_and_takes_down_what_the_other_made(
    directories: tuple[Path, Path], scenario: dict[str, Any], tmp_path: Path
) -> None:
    """A node changes from one set to the other and back while pods run."""
    for number, (maker, keeper) in enumerate((directories, directories[::-1])):
        place = tmp_path / str(number)
        place.mkdir()
        with connected_pod(place) as pod:
            config = _prepare(pod, scenario)
            before = _state(pod)
            result = _call(maker, "ADD", config, pod, pod.previous())
            if maker == directories[0] or config["type"] != "bandwidth":  # the reference looks for an ifb by its own name
                _call(keeper, "CHECK", config, pod, result)
            _call(keeper, "DEL", config, pod, result)
            after = _state(pod)
            assert [rule for rule in after["rules"] if rule not in before["rules"]] == []
            assert after["link"] == before["link"]
            if keeper == directories[1]:
                assert (links_of_node(), after["qdiscs"]) == (["vethpod"], before["qdiscs"])
                assert [path.name for path in place.glob("data/*")] == []


def test_shaped_traffic_is_as_fast(directories: tuple[Path, Path], tmp_path: Path) -> None:
    """By each set alike: the bucket at once, the rest at the rate."""
    config = {"cniVersion": "1.1.0", "name": "net", "type": "bandwidth", "ingressRate": 8_000_000, "ingressBurst": 800_000}
    for directory in directories:
        place = tmp_path / directory.name
        place.mkdir()
        with connected_pod(place) as pod:
            _call(directory, "ADD", config, pod, pod.previous())
            elapsed = seconds_to_send(pod, "10.9.0.2", 1_000_000)
            assert (1_000_000 - 100_000) / elapsed <= 1_000_000 <= 1_000_000 / elapsed * 1.7


def _life(directory: Path, scenario: dict[str, Any], place: Path) -> dict[str, Any]:
    place.mkdir()
    with connected_pod(place) as pod:
        config = _prepare(pod, scenario)
        result = _call(directory, "ADD", config, pod, pod.previous())
        state = _state(pod)
        _call(directory, "CHECK", config, pod, result)
        _call(directory, "DEL", config, pod, result)
        return {**state, "result": _plain_result(result, pod), "link after DEL": _state(pod)["link"], "links": links_of_node()}


def _prepare(pod: Pod, scenario: dict[str, Any]) -> dict[str, Any]:
    config = dict(scenario)
    if config["type"] == "tuning":
        config["dataDir"] = str(pod.directory / "data")
    _inside(pod, "ip link set eth0 address 02:00:00:00:00:01")
    before = config.pop("before", "")
    if before:
        _inside(pod, before)
    return config


def _call(directory: Path, verb: str, config: dict[str, Any], pod: Pod, previous: dict[str, Any]) -> dict[str, Any]:
    previous = {"cniVersion": "1.1.0", **previous}
    environment = {
        "PATH": os.environ["PATH"], "CNI_COMMAND": verb, "CNI_PATH": str(directory), "CNI_CONTAINERID": "c1",
        "CNI_IFNAME": "eth0", "CNI_NETNS": str(pod.path),
    }  # fmt: skip
    done = subprocess.run(
        [str(directory / config["type"])], input=json.dumps({**config, "prevResult": previous}).encode(), env=environment,
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{directory.name} {verb}: {done.stdout.decode()} {done.stderr.decode()}"
    return json.loads(done.stdout) if done.stdout else {}


def _state(pod: Pod) -> dict[str, Any]:
    """What there is to see, without numbers and names that are chosen anew each time."""
    ifbs = [name for name in links_of_node() if name.startswith("bwp")]
    qdiscs = [_without(one, "refcnt") for name in ("vethpod", *ifbs) for one in _json("tc", "-j", "qdisc", "show", "dev", name)]
    return {
        "qdiscs": [{key: "ifb" if value in ifbs else value for key, value in one.items()} for one in qdiscs],
        "filters": [len(_json("tc", "-j", "filter", "show", "dev", "vethpod", "parent", "ffff:"))] if ifbs else [],
        "ifb": [_without(_link(name), "address", "txqlen") for name in ifbs],
        "link": _inside_link(pod),
        "rules": [one for family in ("-4", "-6") for one in json.loads(_inside(pod, f"ip -j {family} rule"))],
        "routes": _routes(pod),
        "sysctls": {key: _inside(pod, f"cat /proc/sys/{key.replace('.', '/').replace('IFNAME', 'eth0')}") for key in _SYSCTLS},
    }


def _routes(pod: Pod) -> list[str]:
    """Without link-local networks, which ours leaves in the main table too, and the kernel's own table."""
    found = []
    for family in ("-4", "-6"):
        for route in json.loads(_inside(pod, f"ip -j {family} route show table all")):
            if route.get("table") != "local" and not route["dst"].startswith("fe80") and route.get("type") != "multicast":
                found.append(json.dumps({key: value for key, value in route.items() if key != "protocol"}, sort_keys=True))
    return sorted(found)


def _plain_result(result: dict[str, Any], pod: Pod) -> dict[str, Any]:
    """Without the sizes that the reference does not tell."""
    interfaces = [
        {
            "name": "ifb" if one["name"].startswith("bwp") else one["name"],
            "mac": "any" if one["name"].startswith("bwp") else one.get("mac"),
            "sandbox": one.get("sandbox", "").replace(str(pod.path), "pod"),
        }
        for one in result["interfaces"]
    ]
    return {**{key: value for key, value in result.items() if key != "dns"}, "interfaces": interfaces}


def _link(name: str) -> dict[str, Any]:
    return _plain_link(_json("ip", "-j", "-d", "link", "show", name)[0])


def _inside_link(pod: Pod) -> dict[str, Any]:
    return _plain_link(json.loads(_inside(pod, "ip -j -d link show eth0"))[0])


def _plain_link(link: dict[str, Any]) -> dict[str, Any]:
    return {key: link.get(key) for key in ("flags", "mtu", "qdisc", "address", "txqlen", "promiscuity")}


def _without(document: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key not in keys}


def _json(*command: str) -> list[dict[str, Any]]:
    output = subprocess.run(command, check=True, capture_output=True).stdout
    return json.loads(output or b"[]")  # type: ignore[no-any-return]


def _inside(pod: Pod, command: str) -> str:
    return subprocess.run(["nsenter", f"--net={pod.path}", *command.split()], check=True, capture_output=True, text=True).stdout
