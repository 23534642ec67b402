"""Calls of our plugins with the environment and the answer of an executable, and without its process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cni_plugins import skel
from runtime_core.registry import installed
from tests.kernel.cni.main_node import Node


class Answers:
    def __init__(self, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
        self.node, self._monkeypatch = node, monkeypatch
        self._modules = {driver.name: driver.entry for driver in installed("cni")}

    def __call__(self, verb: str, config: dict[str, Any], netns: Path | str = "", **variables: str) -> dict[str, Any]:
        """The result or the error object, {} where there is neither; `variables` without CNI_."""
        given = {"CONTAINERID": "c1", "IFNAME": "eth0", "ARGS": "", "PATH": "/nowhere", "NETNS": str(netns), **variables}
        for key, value in {"COMMAND": verb, **given}.items():
            self._monkeypatch.setenv(f"CNI_{key}", value)
        status, output = skel.serve_call(config["type"], self._modules, "", json.dumps(config).encode(), [])
        assert (status == 0) == (b'"code"' not in output)
        found: dict[str, Any] = json.loads(output or b"{}")
        return found

    def attach(self, config: dict[str, Any], netns: Path | str, **variables: str) -> dict[str, Any]:
        """The configuration with the result, as the calls after ADD have it."""
        result = self("ADD", config, netns, **variables)
        assert "code" not in result, result
        return {**config, "prevResult": result}
