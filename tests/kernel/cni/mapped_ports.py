"""A pod on a bridge of a node with an uplink, and its port maps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from runtime_core.testing.tools import require_program
from tests.kernel.cni import main_node
from tests.kernel.cni.main_node import Node, uplink
from tests.kernel.cni.port_traffic import talk

OUTSIDE = {4: "198.51.100.2", 6: "2001:db8::2"}
NODE = {4: "198.51.100.1", 6: "2001:db8::1"}
POD = {4: "10.77.0.2", 6: "fd77::2"}
GATEWAY = {4: "10.77.0.1", 6: "fd77::1"}
WEB = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
DNS = {"hostPort": 8053, "containerPort": 53, "protocol": "udp"}
backends = pytest.mark.parametrize("backend", ["nftables", "iptables"])


class Mapped:
    """A pod on a bridge of the node, which has an uplink, and its port maps."""

    def __init__(self, node: Node, backend: str) -> None:
        if backend == "iptables":
            require_program("iptables", "iptables")
        self.node, self.backend = node, backend
        self.outside, self.pod = node.pod("outside"), node.pod("pod")
        uplink(self.outside)
        # hairpinMode because of br_netfilter, which leads a frame back to where it came from without the node's routing
        self.bridge = node.config("bridge", bridge="cnit0", isDefaultGateway=True, hairpinMode=True)
        self.result = node.call("ADD", self.bridge, self.pod)

    def config(self, *ports: dict[str, Any], **more: Any) -> dict[str, Any]:
        made = {
            "cniVersion": "1.1.0", "name": "net", "type": "portmap", "backend": self.backend,
            "runtimeConfig": {"portMappings": list(ports)}, "prevResult": self.result, **more,
        }  # fmt: skip
        return {key: value for key, value in made.items() if value is not None}

    def add(self, *ports: dict[str, Any], **more: Any) -> dict[str, Any]:
        """The configuration, after ADD."""
        config = self.config(*ports, **more)
        self.node.call("ADD", config, self.pod)
        return config

    def seen(self, origin: Path | None, address: str, port: dict[str, Any] = WEB) -> str | None:
        """By the pod, when `origin` talks to the port at `address`."""
        server = (POD[6 if ":" in address else 4], port["containerPort"])
        return talk(port["protocol"], origin, (address, port["hostPort"]), self.pod, server)


@contextmanager
def made(directory: Path, backend: str) -> Iterator[Mapped]:
    with main_node.made(directory) as node:
        yield Mapped(node, backend)
