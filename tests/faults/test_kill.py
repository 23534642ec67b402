"""The daemon and monitors killed at every step: after the next start nothing is left that nobody owns."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from cni_plugins.ipam.host_local.leases import list_leases
from cri.api.v1 import api_pb2 as api
from runtime_core.kernel import mounts, netlink
from runtime_core.network.links import Links
from trivet.demo import image as demo_image
from trivet.demo.node import DemoNode
from trivet.demo.registry import Registry

_ROOT = Path(__file__).parents[2]
_POINT = re.compile(r'failpoint\.hit\("([a-z.-]+)"\)')
#: points of other lives, which have tests of their own: volumes, and the import of another program's leases
_OTHER_ROOMS, _OTHERS = {"volumes"}, {"ipam.taken-over", "ipam.removed"}
#: points that the life of one pod passes, found in the sources so that a new one is tested at once
POINTS = sorted(
    point
    for folder in ("runtime_core", "cri", "cni_plugins", "plugins")
    for path in (_ROOT / folder).rglob("*.py")
    if not _OTHER_ROOMS & set(path.parts)
    for point in _POINT.findall(path.read_text())
    if point not in _OTHERS
)


@pytest.fixture
def registry() -> Iterator[Registry]:
    registry = Registry()
    yield registry
    registry.close()


@pytest.fixture
def node() -> Iterator[DemoNode]:
    node = DemoNode()
    yield node
    node.close()
    assert _leftovers(node) == []


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_step_everything_is_found_again(
    point: str, node: DemoNode, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever passes the point dies there. A daemon without failpoints then recovers, and a whole life succeeds."""
    config = {"Env": ["PATH=/bin"], "Volumes": {"/etc": {}}}
    reference = registry.put_image("t/tools", "1", [demo_image.build_layer()], config)
    monkeypatch.setenv("TRIVET_FAILPOINTS", f"{point}=kill")
    node.start()
    died = _died(node, reference)
    assert died or _was_hit(node, point), f"nothing passes {point}"
    monkeypatch.delenv("TRIVET_FAILPOINTS")
    node.kill()
    node.start()
    runtime = node.runtime()
    for pod in runtime.ListPodSandbox(api.ListPodSandboxRequest()).items:
        runtime.StopPodSandbox(api.StopPodSandboxRequest(pod_sandbox_id=pod.id))
        runtime.RemovePodSandbox(api.RemovePodSandboxRequest(pod_sandbox_id=pod.id))
    assert _owned(node) == []
    _life(node, reference)
    assert _owned(node) == []


def _was_hit(node: DemoNode, point: str) -> bool:
    """Some deaths no caller notices; a container's init has its standard error in the container's log by then."""
    logs = (node.directory / "log", node.directory / "logs" / "c.log")
    return any(f"failpoint {point}" in log.read_text() for log in logs if log.exists())


def _died(node: DemoNode, reference: str) -> bool:
    try:
        _life(node, reference)
    except grpc.RpcError:
        return True  # the daemon is dead, or it said that a monitor is
    return False


def _life(node: DemoNode, reference: str) -> None:
    runtime = node.runtime()
    node.images().PullImage(api.PullImageRequest(image=api.ImageSpec(image=reference)), timeout=30)
    config = api.PodSandboxConfig(
        metadata=api.PodSandboxMetadata(name="p", uid="u", namespace="n"),
        log_directory=str(node.directory / "logs"),
        linux=api.LinuxPodSandboxConfig(cgroup_parent=node.cgroup),
    )
    pod = runtime.RunPodSandbox(api.RunPodSandboxRequest(config=config), timeout=30).pod_sandbox_id
    container: Any = api.ContainerConfig(
        metadata=api.ContainerMetadata(name="c"), image=api.ImageSpec(image=reference), command=["sleep", "600"], log_path="c.log"
    )
    request = api.CreateContainerRequest(pod_sandbox_id=pod, config=container, sandbox_config=config)
    created = runtime.CreateContainer(request, timeout=30).container_id
    runtime.StartContainer(api.StartContainerRequest(container_id=created), timeout=30)
    runtime.StopContainer(api.StopContainerRequest(container_id=created, timeout=1), timeout=30)
    runtime.RemoveContainer(api.RemoveContainerRequest(container_id=created), timeout=30)
    runtime.StopPodSandbox(api.StopPodSandboxRequest(pod_sandbox_id=pod), timeout=60)
    runtime.RemovePodSandbox(api.RemovePodSandboxRequest(pod_sandbox_id=pod), timeout=30)


def _owned(node: DemoNode) -> list[str]:
    """What is there although no pod is."""
    found: list[str] = []
    for part in (
        "state/pods",
        "state/netns",
        "root/cni",
        "root/overlayfs/snapshots",
        "root/overlayfs/stage",
        "root/image-volumes",
    ):
        path = node.directory / part
        found += [f"{part}/{name}" for name in os.listdir(path)] if path.exists() else []
    found += [f"address {lease.address}" for lease in list_leases(str(node.directory / "ipam"))]
    found += [f"mount {point}" for point in mounts.current_mount_points() if point.startswith(str(node.directory / "state"))]
    with netlink.Socket() as sock:
        links = Links(sock)
        bridge = links.find(node.bridge)
        found += [f"link {link.name}" for link in links.all() if bridge and link.master == bridge.index]
    for hierarchy in ("memory", "pids", "cpu"):
        if os.path.isdir(f"/sys/fs/cgroup/{hierarchy}{node.cgroup}"):
            found.append(f"cgroup {hierarchy}{node.cgroup}")
    return found


def _leftovers(node: DemoNode) -> list[str]:
    """Processes of this node that have outlived it."""
    listed = subprocess.run(["ps", "-eo", "stat=,args="], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if str(node.directory) in line and not line.startswith("Z")]
