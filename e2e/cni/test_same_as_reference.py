"""The same configuration through the reference plugins and through ours: links, addresses, routes, sysctls and results."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from e2e.peers.build import build
from runtime_core.testing import namespaces
from runtime_core.testing.tools import require_program

pytestmark = pytest.mark.timeout(1800)  # the first run compiles

_ROOT = Path(__file__).parents[2]
_REFERENCE = (
    "bridge", "ptp", "macvlan", "tap", "host-device", "loopback", "host-local", "static", "portmap", "firewall",
)  # fmt: skip
_ROUTES = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}, {"dst": "192.0.2.0/24", "gw": "10.77.0.1", "priority": 9}]
_PORTS = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}, {"hostPort": 8053, "containerPort": 53, "protocol": "udp"}]
_MAPPED = {"type": "portmap", "runtimeConfig": {"portMappings": _PORTS}}
_GATEWAY = {"type": "bridge", "bridge": "cnit0", "isGateway": True}
_STATIC = {
    "type": "static",
    "addresses": [{"address": "10.77.0.9/24", "gateway": "10.77.0.1"}, {"address": "fd77::9/64", "gateway": "fd77::1"}],
}
_RANGES = [[{"subnet": "10.77.0.0/24"}], [{"subnet": "fd77::/64"}]]
#: what the kernel chooses anew for each link or namespace
_RANDOM = ("stable_secret", "mtu")

#: scenario → configuration, each on a node with the pair up0, up1 (the default route goes by up0)
_SCENARIOS: dict[str, dict[str, Any]] = {
    "bridge": {"type": "bridge", "bridge": "cnit0"},
    "bridge as a gateway": {"type": "bridge", "bridge": "cnit0", "isGateway": True},
    "bridge as the default gateway": {"type": "bridge", "bridge": "cnit0", "isDefaultGateway": True, "mtu": 1400},
    "bridge with hairpin": {"type": "bridge", "bridge": "cnit0", "hairpinMode": True},
    "bridge, promiscuous": {"type": "bridge", "bridge": "cnit0", "promiscMode": True},
    "bridge, isolated": {"type": "bridge", "bridge": "cnit0", "portIsolation": True},
    "bridge, looking for duplicates": {"type": "bridge", "bridge": "cnit0", "isGateway": True, "enabledad": True},
    "bridge without addresses": {"type": "bridge", "bridge": "cnit0", "ipam": None},
    "bridge, container down": {"type": "bridge", "bridge": "cnit0", "ipam": None, "disableContainerInterface": True},
    "bridge with dns": {"type": "bridge", "bridge": "cnit0", "dns": {"nameservers": ["10.0.0.10"], "search": ["x.test"]}},
    "bridge, runtime's mac": {"type": "bridge", "bridge": "cnit0", "runtimeConfig": {"mac": "02:00:00:00:00:06"}},
    "ptp": {"type": "ptp"},
    "ptp with mtu": {"type": "ptp", "mtu": 1300},
    "macvlan": {"type": "macvlan", "master": "up0"},
    "macvlan on the default route": {"type": "macvlan"},
    "macvlan, private": {"type": "macvlan", "master": "up0", "mode": "private", "mac": "02:00:00:00:00:07", "mtu": 1400},
    "macvlan, vepa": {"type": "macvlan", "master": "up0", "mode": "vepa", "bcqueuelen": 500},
    "macvlan, passthru": {"type": "macvlan", "master": "up0", "mode": "passthru"},
    "macvlan without addresses": {"type": "macvlan", "master": "up0", "ipam": None},
    "tap": {"type": "tap", "owner": 5, "group": 6},
    "tap without owner": {"type": "tap", "mac": "02:00:00:00:00:08", "mtu": 1400, "multiQueue": True},
    "tap without addresses": {"type": "tap", "ipam": None, "owner": 5, "group": 6},
    "host-device": {"type": "host-device", "device": "up1"},
    "host-device without addresses": {"type": "host-device", "device": "up1", "ipam": None},
    "loopback": {"type": "loopback", "ipam": None},
    "bridge, masquerading by nftables": {**_GATEWAY, "ipMasq": True, "ipMasqBackend": "nftables"},
    "bridge, masquerading by iptables": {**_GATEWAY, "ipMasq": True, "ipMasqBackend": "iptables"},
    "ptp, masquerading": {"type": "ptp", "ipMasq": True},
    "bridge, static": {**_GATEWAY, "ipam": {**_STATIC, "routes": _ROUTES, "dns": {"nameservers": ["10.77.0.53"]}}},
    "ptp, static": {"type": "ptp", "ipam": _STATIC},
    "bridge, the runtime's address": {**_GATEWAY, "runtimeConfig": {"ips": ["10.77.0.44/24", "fd77::44/64"]}},
    "portmap by nftables": {**_GATEWAY, "then": [{**_MAPPED, "backend": "nftables"}]},
    "portmap by iptables": {**_GATEWAY, "then": [{**_MAPPED, "backend": "iptables"}]},
    "portmap without masquerading": {**_GATEWAY, "then": [{**_MAPPED, "snat": False}]},
    "firewall": {**_GATEWAY, "then": [{"type": "firewall", "backend": "iptables"}]},
    "firewall and portmap": {
        **_GATEWAY,
        "then": [{"type": "firewall", "ingressPolicy": "same-bridge", "backend": "iptables"}, _MAPPED],
    },
    **{f"bridge, version {version}": {**_GATEWAY, "cniVersion": version} for version in ("0.2.0", "0.3.1", "0.4.0", "1.0.0")},
}


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Where the reference plugins and ours lie."""
    require_program("go", "golang")
    require_program("ip", "iproute2")
    theirs = tmp_path_factory.mktemp("reference")
    for name in _REFERENCE:
        (theirs / name).symlink_to(build(name))
    ours = tmp_path_factory.mktemp("ours")
    command = [sys.executable, "-m", "cni_plugins", "install", "--bin-dir", str(ours)]
    subprocess.run(command, cwd=_ROOT, check=True, capture_output=True)
    return theirs, ours


@pytest.fixture(params=_SCENARIOS)
def scenario(request: pytest.FixtureRequest) -> dict[str, Any]:
    # with isDefaultGateway the reference plugin refuses the same route from ipam, ours takes it for the one that is meant
    routes = [route for route in _ROUTES if "gw" in route or "isDefaultGateway" not in _SCENARIOS[request.param]]
    ipam = {"type": "host-local", "ranges": _RANGES, "routes": routes}
    config = {"cniVersion": "1.1.0", "name": "net", "ipam": ipam, **_SCENARIOS[request.param]}
    return {key: value for key, value in config.items() if value is not None}


def test_the_same(directories: tuple[Path, Path], scenario: dict[str, Any], tmp_path: Path) -> None:
    """After ADD, and after DEL; and each set's CHECK accepts what it made."""
    theirs, ours = (_life(directory, scenario, tmp_path / directory.name) for directory in directories)
    if scenario["type"] == "loopback":
        theirs["DEL"] = ours["DEL"]  # theirs takes lo down, also for whoever else is in the namespace
    assert _differences(ours, theirs) == []


def test_each_takes_down_what_the_other_made(directories: tuple[Path, Path], scenario: dict[str, Any], tmp_path: Path) -> None:
    """A node changes from one set to the other and back while pods run: nothing of theirs is left in the pod."""
    theirs, ours = directories
    for number, (maker, remover) in enumerate(((theirs, ours), (ours, theirs))):
        with _Node(tmp_path / str(number)) as node:
            before = set(node.links(node.pod)), set(node.links(None))
            result = node.add(maker, scenario)
            node.delete(remover, scenario, result)
            assert (set(node.links(node.pod)), set(node.links(None)) - {"cnit0"}) == before


def _differences(ours: Any, theirs: Any, at: str = "") -> list[str]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return [line for key in sorted({*ours, *theirs}) for line in _differences(ours.get(key), theirs.get(key), f"{at}/{key}")]
    if isinstance(ours, list) and isinstance(theirs, list):
        return [f"{at}: ours alone {one}" for one in ours if one not in theirs] + [
            f"{at}: theirs alone {one}" for one in theirs if one not in ours
        ]
    return [] if ours == theirs else [f"{at}: ours {ours}, theirs {theirs}"]


def _life(directory: Path, config: dict[str, Any], place: Path) -> dict[str, dict[str, Any]]:
    with _Node(place) as node:
        result = node.add(directory, config)
        after_add = {**node.state(), "result": _result(result, node)}
        # Without ipam the CHECK of the reference bridge always fails; before 0.4.0 there is none.
        if (config["type"] != "bridge" or "ipam" in config) and config["cniVersion"] >= "0.4.0":
            for one in _chain(config):
                node.call(directory, "CHECK", {**one, "prevResult": result})
        node.delete(directory, config, result)
        return {"ADD": after_add, "DEL": node.state()}


def _chain(config: dict[str, Any]) -> list[dict[str, Any]]:
    """The scenario's plugin and those after it."""
    first = {key: value for key, value in config.items() if key != "then"}
    common = {key: config[key] for key in ("cniVersion", "name")}
    return [first, *({**common, **one} for one in config.get("then", []))]


class _Node:
    """A node in a network namespace of its own, with one pod."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._directory, self.pod = directory, directory / "pod"
        self._namespace = namespaces.node_namespace()

    def __enter__(self) -> _Node:
        self._namespace.__enter__()
        namespaces.pin_namespace(self.pod)
        for command in (
            "link add up0 address 02:00:00:00:01:00 type veth peer name up1 address 02:00:00:00:01:01",
            "link set up0 up", "link set up1 up", "address add 198.51.100.1/24 dev up0", "route add default via 198.51.100.2",
        ):  # fmt: skip
            _ip(command)
        return self

    def __exit__(self, *error: Any) -> None:
        namespaces.unpin_namespace(self.pod)
        self._namespace.__exit__(*error)

    def add(self, directory: Path, config: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for one in _chain(config):
            result = self.call(directory, "ADD", {**one, **({"prevResult": result} if result else {})})
        return result

    def delete(self, directory: Path, config: dict[str, Any], result: dict[str, Any]) -> None:
        for one in reversed(_chain(config)):
            self.call(directory, "DEL", {**one, "prevResult": result})

    def call(self, directory: Path, verb: str, config: dict[str, Any]) -> dict[str, Any]:
        if "ipam" in config:
            config = {**config, "ipam": {**config["ipam"], "dataDir": str(self._directory / "ipam")}}
        environment = {
            "PATH": os.environ["PATH"], "CNI_COMMAND": verb, "CNI_PATH": str(directory), "CNI_CONTAINERID": "c1",
            "CNI_IFNAME": "eth0", "CNI_NETNS": str(self.pod), "TRIVET_CNI_SERVICE": "off",
        }  # fmt: skip
        done = subprocess.run(
            [str(directory / config["type"])], input=json.dumps(config), env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{directory.name} {verb}: {done.stdout} {done.stderr}"
        return json.loads(done.stdout) if done.stdout.strip() else {}

    def state(self) -> dict[str, Any]:
        """Of the node and of the pod, without what is chosen anew each time."""
        found: dict[str, Any] = {}
        for where, place in (("node", None), ("pod", self.pod)):
            found[f"links of the {where}"] = self.links(place)
            found[f"addresses of the {where}"] = _addresses(place)
            found[f"routes of the {where}"] = _routes(place)
            for name in self.links(place, is_named=True):
                found[f"sysctls of {_named(name)} of the {where}"] = _sysctls(place, name)
            found[f"forwarding of the {where}"] = [_read(place, key) for key in ("ipv4/ip_forward", "ipv6/conf/all/forwarding")]
        return found

    def links(self, place: Path | None, *, is_named: bool = False) -> dict[str, Any]:
        found = {}
        for link in json.loads(_ip("-j -d link show", place)):
            name = link["ifname"] if is_named else _named(link["ifname"])
            information = link.get("linkinfo", {})
            port = information.get("info_slave_data", {})
            data = information.get("info_data", {})
            kept = ("mode", "bc_queue_len", "user", "group", "multi_queue", "type", "persist")
            found[name] = {
                "mtu": link["mtu"], "flags": sorted(set(link["flags"]) - {"M-DOWN", "NO-CARRIER"}), "master": link.get("master"),
                "promiscuity": link.get("promiscuity"), "kind": information.get("info_kind"),
                "mac": link["address"] if link["address"].startswith("02:00:00") else "its own",
                "port": {key: port.get(key) for key in ("hairpin", "isolated", "state")},
                "data": {key: data.get(key) for key in kept},
            }  # fmt: skip
        return found


def _addresses(place: Path | None) -> list[Any]:
    found = []
    for link in json.loads(_ip("-j address show", place)):
        for one in link["addr_info"]:  # whether duplicates are still looked for is a matter of time
            if not str(one.get("local", "")).startswith("fe80"):
                found.append((_named(link["ifname"]), one["local"], one["prefixlen"], one["scope"], one.get("broadcast")))
    return sorted(found, key=repr)


def _routes(place: Path | None) -> list[Any]:
    found = []
    for family in ("-4", "-6"):
        for one in json.loads(_ip(f"-j {family} route show table all", place)):
            # local ones of IPv6 come when the kernel has looked for duplicates: a matter of time
            kinds = ("anycast", "multicast", *(["local"] if family == "-6" else []))
            if one.get("dst", "").startswith(("fe80", "ff00")) or one.get("type") in kinds:
                continue
            keys = ("type", "dst", "gateway", "scope", "prefsrc", "protocol", "table")
            metric = one.get("metric") if family == "-4" or one.get("protocol") != "kernel" else None
            found.append((_named(one.get("dev", "")), metric, *(one.get(key) for key in keys)))
    return sorted(found, key=repr)


def _sysctls(place: Path | None, name: str) -> dict[str, str]:
    found = {}
    with _in(place):
        for family in ("ipv4", "ipv6"):
            for path in sorted(Path(f"/proc/sys/net/{family}/conf/{name}").iterdir()):
                if path.name not in _RANDOM and os.access(path, os.R_OK):
                    found[f"{family}/{path.name}"] = path.read_text().strip()
    if place is None:
        for key in ("ipv6/accept_ra", "ipv6/accept_dad"):  # ours are 0 at the node's ends: test_main_bridge.py, test_main_ptp.py
            found.pop(key)
    return found


def _result(result: dict[str, Any], node: _Node) -> dict[str, Any]:
    text = json.dumps(result).replace(str(node.pod), "POD")
    found: dict[str, Any] = json.loads(re.sub(r"veth[0-9a-f]+", "VETH", text))
    for one in found.get("interfaces", []):
        if not one.get("mac", "").startswith(("02:00:00", "00:00")):
            one["mac"] = "its own"
        one.pop("mtu", None)  # of 1.1.0; the reference plugins leave it out
    return found


def _named(name: str) -> str:
    return "VETH" if name.startswith("veth") else name


def _read(place: Path | None, path: str) -> str:
    with _in(place):
        return Path("/proc/sys/net", path).read_text().strip()


def _ip(arguments: str, place: Path | None = None) -> str:
    with _in(place):
        return subprocess.run(["ip", *arguments.split()], check=True, capture_output=True, text=True).stdout


def _in(place: Path | None) -> Any:
    from contextlib import nullcontext

    return nullcontext() if place is None else namespaces.in_pinned_namespace(str(place))
