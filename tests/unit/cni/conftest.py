"""A bin directory of fake plugins, which are shell scripts and keep a diary of their calls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runtime_core.cni.cache import Attachment, Cache
from runtime_core.cni.caller import Caller
from runtime_core.cni.invoke import Plugins

RESULT = {"ips": [{"address": "10.0.0.2/24", "gateway": "10.0.0.1"}]}


class Node:
    """Where the caller finds its plugins, and what they were asked."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.bin, self.conf = directory, directory / "bin", directory / "net.d"
        self.bin.mkdir()
        self.conf.mkdir()
        self.cache = Cache(directory / "cache")

    def plugin(self, name: str, script: str = "", *, answer: Any = RESULT) -> None:
        """An executable that notes the call and its stdin, runs `script`, and answers ADD."""
        diary = f'echo "$CNI_COMMAND {name}" >> {self.directory}/diary; cat > {self.directory}/{name}.$CNI_COMMAND'
        add = f"[ \"$CNI_COMMAND\" != ADD ] || cat <<'END'\n{json.dumps(answer)}\nEND\n"
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{diary}\n{script}\n{add}")
        path.chmod(0o755)

    def diary(self) -> list[str]:
        path = self.directory / "diary"
        return path.read_text().splitlines() if path.exists() else []

    def stdin(self, name: str, verb: str) -> dict[str, Any]:
        return json.loads((self.directory / f"{name}.{verb}").read_text())  # type: ignore[no-any-return]

    def plugins(self, seconds: float = 20, modules: dict[str, str] | None = None) -> Plugins:
        return Plugins([str(self.bin)], modules or {}, timeout=seconds)

    def caller(self, seconds: float = 20) -> Caller:
        return Caller(self.plugins(seconds), self.cache)

    def document(self, *kinds: str, version: str = "1.1.0", **more: Any) -> dict[str, Any]:
        return {"cniVersion": version, "name": "net", "plugins": [{"type": kind} for kind in kinds], **more}

    def attachment(self, document: dict[str, Any], **more: Any) -> Attachment:
        fields: dict[str, Any] = {
            "container_id": "c1", "interface": "eth0", "netns": str(self.directory), "network": document["name"],
            "config": document, "args": {"K": "v"}, "capabilities": {}, **more,
        }  # fmt: skip
        return Attachment(**fields)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)
