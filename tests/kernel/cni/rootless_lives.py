"""The lives of attachments by every plugin, for a caller that is root in a user namespace of its own alone: it is run there.

unshare -Urnm python -m tests.kernel.cni.rootless_lives DIRECTORY  →  {plugin and options: what was refused}
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runtime_core.errors import TrivetError
from runtime_core.kernel import syscalls
from tests.kernel.cni import main_node
from tests.kernel.cni.main_node import Node, add_pair

_PORTS = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}
_RATES = {"ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 8_000_000, "egressBurst": 800_000}
_SETTINGS = {"mac": "02:00:00:00:00:07", "mtu": 1400, "promisc": True, "allmulti": True, "txQLen": 77}
_SYSCTLS = {"net.ipv4.conf.IFNAME.arp_filter": "1", "net.core.somaxconn": "333"}
_MAIN: list[dict[str, Any]] = [
    *({"type": kind, "ipMasq": True, "ipMasqBackend": by} for kind in ("bridge", "ptp") for by in ("nftables", "iptables")),
    {"type": "bridge", "isDefaultGateway": True, "macspoofchk": True, "enabledad": True, "hairpinMode": True},
    {"type": "bridge", "promiscMode": True, "portIsolation": True},
    {"type": "macvlan", "master": "up0"},
    {"type": "ipvlan", "master": "up0"},
    {"type": "vlan", "master": "up0", "vlanId": 5},
    {"type": "tap", "owner": 0, "group": 0},
    {"type": "tap", "bridge": "cni0"},
    {"type": "dummy"},
    {"type": "loopback", "ipam": None},
    {"type": "host-device", "device": "dev0"},
]
_CHAINED: list[dict[str, Any]] = [
    *({"type": "portmap", "backend": by, "runtimeConfig": _PORTS} for by in ("nftables", "iptables")),
    *(
        {"type": "firewall", "backend": by, "ingressPolicy": policy}
        for by in ("nftables", "iptables")
        for policy in ("open", "same-bridge", "isolated")
    ),
    {"type": "bandwidth", **_RATES},
    {"type": "tuning", **_SETTINGS, "sysctl": _SYSCTLS},
    {"type": "sbr"},
    {"type": "vrf", "vrfname": "blue"},
]


def main(directory: Path) -> None:
    for path in ("/run", "/var"):  # who is not root of the node may write in neither
        syscalls.mount(path, path, "", syscalls.MS_BIND | syscalls.MS_REC)
        syscalls.mount_setattr(syscalls.AT_FDCWD, path, flags=0, attr_set=syscalls.MOUNT_ATTR_RDONLY)
    with main_node.made(directory) as node:
        for name in ("up", "dev"):
            add_pair(f"{name}0", f"{name}1")
        print(json.dumps({said: refusals for said, refusals in _lives(node) if refusals}))


def _lives(node: Node) -> Iterator[tuple[str, list[str]]]:
    for number, config in enumerate(_MAIN):
        yield json.dumps(config), _life(node, node.config(config["type"], **config), f"main{number}")
    before = node.config("bridge", isGateway=True)
    for number, config in enumerate(_CHAINED):
        name = f"chained{number}"
        result = node.call("ADD", before, node.pod(name), container_id=name)
        data = {"dataDir": str(node.directory / "tuning")} if config["type"] == "tuning" else {}
        chained = {"cniVersion": "1.1.0", "name": "net", "prevResult": result, **config, **data}
        yield json.dumps(config), _life(node, chained, name)
        node.call("DEL", before, node.directory / name, container_id=name)


def _life(node: Node, config: dict[str, Any], name: str) -> list[str]:
    """Every verb; what was refused."""
    pod, refusals = node.directory / name, []
    if not pod.exists():
        node.pod(name)
    for verb in ("STATUS", "ADD", "CHECK", "DEL", "DEL", "GC"):
        more = {"cni.dev/valid-attachments": []} if verb == "GC" else {}
        try:
            result = node.call(verb, {**config, **more}, pod, container_id=name)
            if verb == "ADD":
                config = {**config, "prevResult": result}
        except TrivetError as error:
            if "this kernel has no" in str(error) or "the kernel has no" in str(error):
                return []
            refusals.append(f"{verb}: {error}")
    return refusals


if __name__ == "__main__":
    main(Path(sys.argv[1]))
