"""The pod network as the daemon's clients see it: NetworkReady, and CHECK after a restart."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from cri.api.v1 import api_pb2 as api
from e2e.wait import wait_for
from runtime_core.testing.tools import require_program
from trivet.demo.node import DemoNode

_SECONDS = 20


@pytest.fixture
def node() -> Iterator[DemoNode]:
    node = DemoNode()
    try:
        yield node
    finally:
        node.close()


def _network_ready(node: DemoNode) -> Any:
    conditions = node.runtime().Status(api.StatusRequest()).status.conditions
    return next(condition for condition in conditions if condition.type == "NetworkReady")


def _run_pod(node: DemoNode, name: str) -> str:
    config = api.PodSandboxConfig(
        metadata=api.PodSandboxMetadata(name=name, uid=name, namespace="t"),
        linux=api.LinuxPodSandboxConfig(cgroup_parent=f"{node.cgroup}/{name}"),
    )
    return str(node.runtime().RunPodSandbox(api.RunPodSandboxRequest(config=config)).pod_sandbox_id)


def _warnings(node: DemoNode) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (node.directory / "log").read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["level"] == "warning" and "of" in line]


def test_network_ready_says_what_the_plugin_says(node: DemoNode) -> None:
    """Its STATUS is the reason for being not ready; a broken configuration is named; a mended one is ready again."""
    (node.directory / "bin").mkdir()
    plugin = node.directory / "bin" / "uplink"
    plugin.write_text('#!/bin/sh\n[ $CNI_COMMAND != STATUS ] || { echo \'{"code": 50, "msg": "no uplink"}\'; exit 1; }\n')
    plugin.chmod(0o755)
    first = node.directory / "cni" / "00-first.conflist"
    first.write_text(json.dumps({"cniVersion": "1.1.0", "name": "up", "plugins": [{"type": "uplink"}]}))
    node.start()
    ready = _network_ready(node)
    assert (ready.status, ready.reason) == (False, "NetworkPluginNotReady")
    assert ready.message == "CNI plugin uplink STATUS: no uplink (code 50)"
    (node.directory / "cni" / "10-demo.conflist").rename(node.directory / "demo")
    first.write_text("{")
    wait_for("the broken file", lambda: "00-first.conflist" in _network_ready(node).message, _SECONDS)
    first.unlink()
    wait_for("no file", lambda: "no network configuration" in _network_ready(node).message, _SECONDS)
    (node.directory / "demo").rename(node.directory / "cni" / "10-demo.conflist")
    wait_for("a ready network", lambda: _network_ready(node).status, _SECONDS)


def test_a_restarted_daemon_warns_of_a_pod_whose_network_is_broken(node: DemoNode) -> None:
    """By its id; the pod goes on, and the other pod is not mentioned."""
    require_program("ip", "iproute2")
    require_program("nsenter", "util-linux")
    node.start()
    broken, sound = _run_pod(node, "broken"), _run_pod(node, "sound")
    node.kill()
    netns = Path(node.directory, "state", "netns", broken)
    subprocess.run(["nsenter", f"--net={netns}", "ip", "addr", "flush", "dev", "eth0"], check=True)
    node.start()
    (warning,) = wait_for("a warning", lambda: _warnings(node), _SECONDS)
    assert warning["of"] == f"network of pod {broken}"
    assert "eth0 of the container lacks" in warning["error"]
    assert sound not in json.dumps(_warnings(node))
    for pod in (broken, sound):
        status = node.runtime().PodSandboxStatus(api.PodSandboxStatusRequest(pod_sandbox_id=pod)).status
        assert status.state == api.SANDBOX_READY


def test_a_pod_whose_add_and_del_fail_is_released_when_the_plugin_is_mended(node: DemoNode) -> None:
    """RunPodSandbox says what ADD said and leaves no pod; what DEL could not release, the next start does."""
    diary = node.directory / "diary"
    (node.directory / "bin").mkdir()
    plugin = node.directory / "bin" / "fragile"
    plugin.write_text('#!/bin/sh\necho \'{"code": 100, "msg": "broken \'$CNI_COMMAND\'"}\'; exit 1\n')
    plugin.chmod(0o755)
    document = {"cniVersion": "1.0.0", "name": "up", "plugins": [{"type": "fragile"}]}
    (node.directory / "cni" / "00-first.conflist").write_text(json.dumps(document))
    node.start()
    with pytest.raises(grpc.RpcError) as raised:
        _run_pod(node, "unlucky")
    assert "CNI plugin fragile ADD: broken ADD" in raised.value.details()
    assert list(node.runtime().ListPodSandbox(api.ListPodSandboxRequest()).items) == []
    assert list((node.directory / "state" / "netns").iterdir()) == []
    (cached,) = (node.directory / "root" / "cni").iterdir()
    node.kill()
    plugin.write_text(f"#!/bin/sh\necho $CNI_COMMAND $CNI_CONTAINERID >> {diary}\n")
    node.start()
    assert diary.read_text() == f"DEL {cached.name.partition(':')[0]}\n"
    assert list((node.directory / "root" / "cni").iterdir()) == []
