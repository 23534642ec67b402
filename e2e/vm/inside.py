"""Run in the guest by test_cgroup_v2.py: what only cgroup v2 has, seen in its files."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cri.api.v1 import api_pb2 as api
from plugins.cgroup_managers.v2 import CgroupV2
from runtime_core.errors import FailedPrecondition, InvalidArgument
from runtime_core.kernel import device_bpf
from trivet.commands import demo
from trivet.demo import image
from trivet.demo.node import DemoNode
from trivet.demo.registry import Registry

_ROOT = Path("/sys/fs/cgroup")
_MIB = 1 << 20


@pytest.fixture
def path() -> Iterator[str]:
    made = f"/trivet-inside-{secrets.token_hex(4)}"
    yield made
    CgroupV2().destroy(made)


def test_processes_in_a_parent_are_named(path: str) -> None:
    """The kernel's "no internal processes" rule, in words: which cgroup, and which processes are in the way."""
    cgroups = CgroupV2()
    cgroups.create(path, {})
    process = subprocess.Popen(["sleep", "1000"])
    try:
        cgroups.attach(path, process.pid)
        with pytest.raises(FailedPrecondition, match=f"{path} has processes of its own .{process.pid}"):
            cgroups.create(f"{path}/below", {})
        assert not cgroups.exists(f"{path}/below")
    finally:
        process.kill()
        process.wait()


def test_unified_goes_to_its_files_and_back(path: str) -> None:
    """The keys of `unified`; an update that fails puts each line back, also those by device."""
    cgroups = CgroupV2()
    cgroups.create(path, {"unified": {"memory.high": "33554432", "memory.oom.group": "1"}})
    device = _disk()
    cgroups.update(path, {"unified": {"io.max": f"{device} rbps=1048576"}})
    with pytest.raises(InvalidArgument, match=r"memory\.low"):
        cgroups.update(path, {"unified": {"io.max": f"{device} rbps=max wbps=4096", "memory.high": "max", "memory.low": "x"}})
    read = {name: (_ROOT / path[1:] / name).read_text().strip() for name in ("memory.high", "memory.oom.group", "io.max")}
    assert read == {
        "memory.high": "33554432",
        "memory.oom.group": "1",
        "io.max": f"{device} rbps=1048576 wbps=max riops=max wiops=max",
    }


def test_a_device_program_is_replaced(path: str) -> None:
    """An update with rules takes the place of the program before: one is attached, or none."""
    cgroups = CgroupV2()
    deny = {"allow": False, "access": "rwm"}
    cgroups.create(path, {"devices": [deny]})
    for rules, attached in (([deny, {"allow": True, "access": "m"}], 1), ([{"allow": True, "access": "rwm"}], 0), ([deny], 1)):
        cgroups.update(path, {"devices": rules})
        directory = os.open(_ROOT / path[1:], os.O_RDONLY)
        assert len(device_bpf._attached(directory)) == attached
        os.close(directory)


def test_the_limits_of_a_pod_are_in_its_files() -> None:
    """Through CRI: memory, CPU, weight and unified of a container, its device program, and an update."""
    registry, node = Registry(), DemoNode()
    try:
        node.start()
        reference = registry.put_image("demo/tools", "1", [image.build_layer()], {"Env": ["PATH=/bin"], "Cmd": ["sh"]})
        node.images().PullImage(api.PullImageRequest(image=api.ImageSpec(image=reference)))
        sandbox, pod = demo._run(node)
        resources = api.LinuxContainerResources(
            memory_limit_in_bytes=64 * _MIB, cpu_shares=1024, cpu_quota=50000, cpu_period=100000,
            unified={"memory.high": str(48 * _MIB)},
        )  # fmt: skip
        config = api.ContainerConfig(
            metadata=api.ContainerMetadata(name="limited"), image=api.ImageSpec(image=reference),
            command=["sleep", "1000"], linux=api.LinuxContainerConfig(resources=resources),
        )  # fmt: skip
        runtime = node.runtime()
        request = api.CreateContainerRequest(pod_sandbox_id=sandbox, config=config, sandbox_config=pod)
        container = runtime.CreateContainer(request).container_id
        runtime.StartContainer(api.StartContainerRequest(container_id=container))
        directory = _ROOT / node.cgroup[1:] / container
        wanted = {"memory.max": str(64 * _MIB), "cpu.max": "50000 100000", "cpu.weight": "100", "memory.high": str(48 * _MIB)}
        assert {name: (directory / name).read_text().strip() for name in wanted} == wanted
        opened = os.open(directory, os.O_RDONLY)
        assert len(device_bpf._attached(opened)) == 1
        os.close(opened)
        inside = runtime.ExecSync(api.ExecSyncRequest(container_id=container, cmd=["cat", "/sys/fs/cgroup/memory.max"]))
        assert inside.stdout.decode().strip() == str(64 * _MIB)
        raised = api.LinuxContainerResources(memory_limit_in_bytes=128 * _MIB)
        runtime.UpdateContainerResources(api.UpdateContainerResourcesRequest(container_id=container, linux=raised))
        assert (directory / "memory.max").read_text().strip() == str(128 * _MIB)
        stats = runtime.ContainerStats(api.ContainerStatsRequest(container_id=container)).stats
        assert 0 < stats.memory.available_bytes.value <= 128 * _MIB
    finally:
        node.close()
        registry.close()


def _disk() -> str:
    return next(path for path in Path("/sys/block").iterdir() if path.name.startswith("vd")).joinpath("dev").read_text().strip()
