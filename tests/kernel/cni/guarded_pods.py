"""Pods on bridges of a node with an uplink, each with the firewall after bridge."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from runtime_core.testing.tools import require_program
from tests.kernel.cni import main_node
from tests.kernel.cni.main_node import Node, run, uplink

OUTSIDE = ["198.51.100.2", "2001:db8::2"]
_SUBNETS = {"cnit0": ("10.77.0.0/24", "fd77::/64"), "cnit1": ("10.78.0.0/24", "fd78::/64")}
backends = pytest.mark.parametrize("backend", ["nftables", "iptables"])


class Guarded:
    """Pods on bridges of a node with an uplink, each with the firewall after bridge."""

    def __init__(self, node: Node, backend: str | None) -> None:
        if backend == "iptables":
            require_program("iptables", "iptables")
        self.node = node
        self.backend: str | None = backend
        self.outside = node.pod("outside")
        uplink(self.outside)
        run("ip", "route", "add", "10.78.0.0/24", "via", "198.51.100.1", place=self.outside)
        self.places: dict[str, Path] = {}
        self.results: dict[str, dict[str, Any]] = {}

    def pod(self, name: str, bridge: str = "cnit0", **more: Any) -> dict[str, Any]:
        """The firewall's configuration, after ADD; the pod's name is its container's id."""
        self.places[name] = self.node.pod(name)
        made = self.node.config("bridge", subnets=_SUBNETS[bridge], name=bridge, bridge=bridge, isDefaultGateway=True)
        self.results[name] = self.node.call("ADD", made, self.places[name], container_id=name)
        config = self.config(name, bridge, **more)
        assert self.node.call("ADD", config, self.places[name], container_id=name) == self.results[name]
        return config

    def config(self, name: str, bridge: str = "cnit0", **more: Any) -> dict[str, Any]:
        made = {
            "cniVersion": "1.1.0", "name": bridge, "type": "firewall", "backend": self.backend,
            "prevResult": self.results.get(name), **more,
        }  # fmt: skip
        return {key: value for key, value in made.items() if value is not None}

    def addresses(self, name: str) -> list[str]:
        return main_node.addresses_of(self.results[name])

    def call(self, verb: str, config: dict[str, Any], name: str) -> dict[str, Any]:
        return self.node.call(verb, config, self.places.get(name, ""), container_id=name)


@contextmanager
def made(directory: Path, backend: str | None) -> Iterator[Guarded]:
    with main_node.made(directory) as node:
        yield Guarded(node, backend)
