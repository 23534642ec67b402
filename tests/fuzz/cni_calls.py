"""Hostile CNI calls: valid ones of every plugin with every option, of which a few places are made hostile."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

from tests.kernel.cni.main_node import SUBNETS

_ROUTES = [
    {"dst": "0.0.0.0/0"},
    {"dst": "10.9.0.0/16", "gw": "10.77.0.1", "mtu": 1400, "advmss": 1300, "priority": 5, "table": 100, "scope": 0},
]
_DNS = {"nameservers": ["10.0.0.53"], "domain": "a.test", "search": ["b.test"], "options": ["ndots:5"]}
_RATES = {"ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 8_000_000, "egressBurst": 800_000}
_PORTS = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "10.0.0.9"}, {"hostPort": 53, "containerPort": 53}]
_CHILD = {"master": "up0", "mtu": 1400, "linkInContainer": False}
_MASQUERADE = {"ipMasq": True, "ipMasqBackend": "nftables"}
#: plugin → every option that its documentation has
_MAIN: dict[str, dict[str, Any]] = {
    "bridge": {
        "bridge": "cni1", "isGateway": True, "isDefaultGateway": True, "forceAddress": True, **_MASQUERADE, "mtu": 1400,
        "mac": "02:00:00:00:00:09", "hairpinMode": True, "promiscMode": False, "vlan": 0, "vlanTrunk": [],
        "preserveDefaultVlan": True, "macspoofchk": True, "enabledad": False, "disableContainerInterface": False,
        "portIsolation": True,
    },
    "ptp": {**_MASQUERADE, "mtu": 1400},
    "macvlan": {**_CHILD, "mode": "bridge", "mac": "02:00:00:00:00:09", "bcqueuelen": 1000},
    "ipvlan": {**_CHILD, "mode": "l2"},
    "vlan": {**_CHILD, "vlanId": 5},
    "host-device": {"device": "dev0", "hwaddr": "", "kernelpath": "", "pciBusID": ""},
    "tap": {"multiQueue": True, "owner": 0, "group": 0, "selinuxContext": "", "bridge": "node0", "mtu": 1400, "mac": "02:00:00:00:00:09"},
    "dummy": {},
    "loopback": {},
}  # fmt: skip
_CHAINED: dict[str, dict[str, Any]] = {
    "portmap": {
        "backend": "nftables", "snat": True, "masqAll": False, "markMasqBit": 13, "conditionsV4": [], "conditionsV6": [],
    },
    "firewall": {"backend": "nftables", "firewalldZone": "trusted", "ingressPolicy": "same-bridge"},
    "bandwidth": {**_RATES, "unshapedSubnets": ["10.8.0.0/16"], "shapedSubnets": []},
    "tuning": {
        "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}, "mac": "02:00:00:00:00:07", "mtu": 1400, "promisc": True,
        "allmulti": True, "txQLen": 77,
    },
    "sbr": {"table": None, "gateways": ["10.77.0.1", "fd77::1"], "addSourceHints": True},
    "vrf": {"vrfname": "blue", "table": 7},
}  # fmt: skip
KINDS = (*_MAIN, *_CHAINED)
_RUNTIME = {
    "portMappings": _PORTS, "bandwidth": _RATES, "ips": [], "mac": "02:00:00:00:00:08", "deviceID": "0000:00:00.0",
    "ipRanges": [[{"subnet": "10.78.0.0/24"}]],
}  # fmt: skip
_ARGUMENTS = {"cni": {"mac": "02:00:00:00:00:08", "ips": [], "mtu": 1400, "promisc": True, "sysctl": {}}}
_TEXTS = [
    "", " ", "x", "\0", "a\0b", "\n", "\x1b[31m", "a/b", "../x", ".", "..", "-", "--help", "%s%n", "$(id)", "'; drop", '"', "\\",
    "lo", "eth0", "up0", "cni0", "IFNAME", "x" * 16, "x" * 300, "x" * 70_000, "é", "\u202e", "١٢", "²", "\ud800", "\udcff", "a\ud800b",
    "0", "1", "-1", "1e9", "true", "null", "10.77.0.2", "10.77.0.2/24", "10.77.0.0/33", "10.77.0.0/0", "0.0.0.0/0", "::/0", "::",
    "255.255.255.255/32", "::ffff:10.77.0.0/120", "::ffff:10.77.0.2", "fe80::1%lo", "fd77::/127", "fd77::/0", "224.0.0.1/24", "127.0.0.1/8",
    "10.77.0.0/255.255.255.0", "10.77.0.0/24\n", "1.2.3", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", "02-00-00-00-00-09", "/nowhere",
    "/dev/null", "/dev/zero", "/proc/self/mem", "/proc/self/ns/net", "/dev/null/x", "host-local", "static", "dhcp", "bridge", "tcp", "udp",
    "sctp", "iptables", "nftables", "l3", "passthru", "isolated", "open", "net.", "net.ipv4.conf.IFNAME.nope", "kernel.hostname",
]  # fmt: skip
_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 13, 31, 32, 67, 68, 100, 253, 254, 255, 4094, 4095, 65535, 65536, 65537, 1 << 31, (1 << 31) - 1, 1 << 32,
    (1 << 32) - 1, 1 << 63, -(1 << 63), (1 << 64) - 1, 10**30, -(10**30), 0.5, 1.0, -0.0, 1e308, [], {}, [None], [[]], [{}], {"": None},
    [0], [""], {"a": {"b": []}}, ["x"] * 2000, {str(number): number for number in range(2000)},
]  # fmt: skip
_RAW = [
    "NaN",
    "Infinity",
    "-Infinity",
    "1e400",
    "1" * 5000,
    "[" * 500 + "]" * 500,
    '{"a":' * 700 + "1" + "}" * 700,
    '"\\ud800"',
    "01",
    "'x'",
]
_OTHER_KEYS = [
    "ipam",
    "runtimeConfig",
    "args",
    "prevResult",
    "dns",
    "name",
    "cniVersion",
    "type",
    "cni.dev/valid-attachments",
    "capabilities",
]
VARIABLES = ("COMMAND", "CONTAINERID", "NETNS", "IFNAME", "ARGS", "PATH")
_ARGS = [
    "IP=10.77.0.9",
    "IP=x",
    "IP=",
    "MAC=zz",
    "K",
    "=",
    ";;",
    "IgnoreUnknown=1;IP=fd77::9",
    "GATEWAY=::",
    "K8S_POD_NAME=x;K=\udcff",
]
_ATTACHMENTS = "cni.dev/valid-attachments"
#: the pod that lives all the while
_LIVING = {"containerID": "c9", "ifname": "eth0"}
VERBS = ("ADD", "ADD", "ADD", "DEL", "CHECK", "GC", "STATUS")
_PLACEHOLDER = "@raw value@"


class Call:
    """One call, and the valid one that it was made of."""

    def __init__(self, kind: str, verb: str, text: bytes, variables: dict[str, str], valid: dict[str, Any]) -> None:
        self.kind, self.verb, self.text, self.variables, self.valid = kind, verb, text, variables, valid

    def __repr__(self) -> str:
        return f"{self.kind} {self.verb} {self.variables} {self.text[:3000]!r}"


def make(rng: random.Random, directory: Path, pod: Path, previous: dict[str, Any]) -> Call:
    """`previous` is the result of a valid ADD of bridge in `pod`; `directory` is where state may be kept."""
    kind, verb = rng.choice(KINDS), rng.choice(VERBS)
    valid = _valid(rng, kind, directory, previous, verb)
    config = copy.deepcopy(valid)
    raw: list[str] = []
    for _time in range(rng.choice((1, 1, 2, 3))):
        _harm(rng, config, raw)
    attachments = config.get(_ATTACHMENTS)
    if isinstance(attachments, list) and _LIVING not in attachments:
        attachments.append(_LIVING)  # or its lease would rightly be taken
    variables = {"COMMAND": verb, "CONTAINERID": "c1", "NETNS": str(pod), "IFNAME": "eth0", "ARGS": "", "PATH": "/nowhere"}
    if rng.random() < 0.2:
        name = rng.choice(VARIABLES)
        variables[name] = rng.choice(_ARGS if name == "ARGS" and rng.random() < 0.7 else _TEXTS)
    variables = {name: value for name, value in variables.items() if _is_of_an_environment(value)}
    return Call(kind, variables.get("COMMAND", ""), _written(rng, config, raw), variables, valid)


def _valid(rng: random.Random, kind: str, directory: Path, previous: dict[str, Any], verb: str) -> dict[str, Any]:
    options = _MAIN.get(kind) or _CHAINED.get(kind) or {}
    some = {key: value for key, value in options.items() if rng.random() < 0.6}
    config: dict[str, Any] = {"cniVersion": "1.1.0", "name": "net", "type": kind, **copy.deepcopy(some)}
    if kind in _MAIN and kind != "loopback":
        config["ipam"] = _ipam(rng, directory)
    if kind == "tuning":
        config["dataDir"] = str(directory / "tuning")
    if kind in _CHAINED or verb == "CHECK":
        config["prevResult"] = copy.deepcopy(previous)
    runtime = {key: value for key, value in _RUNTIME.items() if rng.random() < 0.15}
    if kind == "portmap":
        runtime["portMappings"] = _PORTS
    if runtime:
        config["runtimeConfig"] = copy.deepcopy(runtime)
    if rng.random() < 0.15:
        config["args"] = copy.deepcopy(_ARGUMENTS)
    if verb == "GC":
        config[_ATTACHMENTS] = [dict(_LIVING)]
    return config


def _ipam(rng: random.Random, directory: Path) -> dict[str, Any]:
    kind = rng.choice(("host-local", "host-local", "host-local", "static", "dhcp"))
    if kind == "static":
        addresses = [{"address": "10.77.0.5/24", "gateway": "10.77.0.1"}, {"address": "fd77::5/64"}]
        return {"type": kind, "addresses": addresses, "routes": copy.deepcopy(_ROUTES), "dns": copy.deepcopy(_DNS)}
    if kind == "dhcp":
        provide, request = [{"option": "12", "value": "x", "fromArg": "K"}], [{"option": "6", "skipDefault": True}]
        socket = str(directory / "dhcp.sock")
        return {"type": kind, "daemonSocketPath": socket, "provide": provide, "request": request, "priority": 7}
    ranges = [[{"subnet": one}] for one in SUBNETS]
    ranges[0] = [{"subnet": SUBNETS[0], "rangeStart": "10.77.0.2", "rangeEnd": "10.77.0.250", "gateway": "10.77.0.1"}]
    return {
        "type": kind, "dataDir": str(directory / "ipam"), "ranges": ranges, "routes": copy.deepcopy(_ROUTES), "resolvConf": "",
    }  # fmt: skip


def _harm(rng: random.Random, config: dict[str, Any], raw: list[str]) -> None:
    """One place, anywhere: its value becomes another, its key is written otherwise, or it goes."""
    places = list(_places(config))
    holder, key = rng.choice(places)
    if rng.random() < 0.15:
        holder, key = config, rng.choice([*_OTHER_KEYS, *(key for one in (*_MAIN.values(), *_CHAINED.values()) for key in one)])
    if key in ("dataDir", "daemonSocketPath"):  # the values of all that follow must not lie somewhere on this machine
        holder[key] = rng.choice(
            ["", "\0", "/dev/null/x", "/proc/x", str(holder.get(key)) + "/" + "x" * 300, 5, [], None, "\ud800"]
        )
        return
    if rng.random() < 0.08:
        if isinstance(holder, list) or key in holder:
            del holder[key]
    elif rng.random() < 0.08:
        raw.append(rng.choice(_RAW))
        holder[key] = _PLACEHOLDER
    elif rng.random() < 0.1 and isinstance(holder, dict):
        holder[rng.choice(_TEXTS)] = holder.get(key)
    else:
        holder[key] = copy.deepcopy(rng.choice(_TEXTS) if rng.random() < 0.6 else rng.choice(_VALUES))


def _places(value: Any) -> Any:
    """(holder, key or number) of every value below."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        if len(value) < 100:
            yield from _places(inner)


def _written(rng: random.Random, config: dict[str, Any], raw: list[str]) -> bytes:
    text = json.dumps(config)
    for one in raw:
        text = text.replace(json.dumps(_PLACEHOLDER), one, 1)
    chance = rng.random()
    if chance < 0.02:
        return text[: rng.randrange(len(text))].encode()
    if chance < 0.03:
        return b""
    if chance < 0.04:
        return text.encode("utf-16")
    if chance < 0.06:
        place = rng.randrange(len(text))
        return text[:place].encode() + rng.choice([b"\xff", b"\xed\xa0\x80", b"\0", b"\xc3"]) + text[place:].encode()
    if chance < 0.1:
        key = rng.choice(list(config))
        return text[:-1].encode() + f", {json.dumps(key)}: {json.dumps(rng.choice(_TEXTS))}}}".encode()
    return text.encode()


def _is_of_an_environment(value: str) -> bool:
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return "\0" not in value
