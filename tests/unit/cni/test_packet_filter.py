"""The packet filter that a node has chosen reaches a plugin, in-process and by executable alike."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from cni_plugins import skel
from cni_plugins.install import install
from runtime_core.cni.invoke import Plugins
from runtime_core.cni.request import Request
from runtime_core.errors import InvalidArgument

_CONFIG = {"cniVersion": "1.1.0", "name": "net", "type": "probe"}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the plugin `probe` is told."""
    seen: list[str] = []
    module = ModuleType("probe_plugin")
    module.status = lambda request: seen.append(request.packet_filter)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "probe_plugin", module)
    return seen


def test_in_process(seen: list[str]) -> None:
    """By the caller's side."""
    Plugins([], {"probe": "probe_plugin"}, packet_filter="mine:Filter").call("probe", "STATUS", Request(config=_CONFIG))
    assert seen == ["mine:Filter"]


def test_as_an_executable(seen: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """By the stub, which hands it to the skeleton."""
    monkeypatch.setenv("CNI_COMMAND", "STATUS")
    stdin: Any = SimpleNamespace(buffer=io.BytesIO(json.dumps(_CONFIG).encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert skel.main({"probe": "probe_plugin"}, "probe", "mine:Filter") == 0
    assert seen == ["mine:Filter"]


def test_the_stubs_name_its_entry_point(tmp_path: Path) -> None:
    """Resolved when they are installed, since nothing is looked up while a kubelet waits."""
    install(tmp_path, overwrite=False, packet_filter="nftables")
    assert "'plugins.packet_filters.nftables:NftablesFilter'" in (tmp_path / "bridge").read_text()


def test_an_unknown_one_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """With what there is."""
    with pytest.raises(InvalidArgument, match="'no-such': installed are nftables"):
        install(tmp_path / "bin", overwrite=False, packet_filter="no-such")
    assert not (tmp_path / "bin").exists()
