"""Run in the guest by test_systemd.py: the daemons as units with KillMode=process, as docs/operations.md has them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import yaml

from cri.api.v1 import api_pb2 as api
from cri.api.v1 import api_pb2_grpc
from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.api.v1 import csi_pb2_grpc
from runtime_core.kernel import mounts
from tests.support.csi_daemon import MIB, capability
from trivet.demo import image
from trivet.demo.registry import Registry

_BIN = Path(sys.executable).parent
_UNITS = Path("/run/systemd/system")
_SECONDS = 60


class Unit:
    def __init__(self, name: str, socket: Path) -> None:
        self.name, self._socket = name, socket

    @contextmanager
    def running(self) -> Iterator[grpc.Channel]:
        """Started, and stopped at the end."""
        _systemctl("start", self.name)
        try:
            with grpc.insecure_channel(f"unix://{self._socket}") as channel:
                grpc.channel_ready_future(channel).result(_SECONDS)
                yield channel
        finally:
            _systemctl("stop", self.name)
        assert _systemctl("show", "--property=Result,MainPID", self.name) == "MainPID=0\nResult=success"

    def processes(self) -> set[int]:
        """In its cgroup and below it."""
        directory = Path("/sys/fs/cgroup/system.slice", self.name)
        return {int(line) for path in directory.rglob("cgroup.procs") for line in path.read_text().split()}


@contextmanager
def _unit(name: str, socket: Path, *command: str) -> Iterator[Unit]:
    path = _UNITS / name
    path.write_text(f"[Service]\nExecStart={' '.join(command)}\nKillMode=process\n")
    _systemctl("daemon-reload")
    try:
        yield Unit(name, socket)
    finally:
        path.unlink()
        _systemctl("daemon-reload")


def _systemctl(*arguments: str) -> str:
    return subprocess.run(["systemctl", *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def test_pods_outlive_the_unit(tmp_path: Path) -> None:
    """Stopped, only the pod's monitor is left of it, and the container runs on; started again it finds both and ends them."""
    socket, config = tmp_path / "cri.sock", tmp_path / "config.yaml"
    settings = {
        "listen": f"unix://{socket}", "root": str(tmp_path / "root"), "state": str(tmp_path / "state"), "network": "none",
        "registry-dir": str(tmp_path / "registries"),
    }  # fmt: skip
    config.write_text(yaml.safe_dump(settings))
    registry = Registry()
    reference = registry.put_image("demo/tools", "1", [image.build_layer()], {"Env": ["PATH=/bin"], "Cmd": ["sh"]})
    try:
        with _unit("trivet-cri.service", socket, str(_BIN / "trivet-cri"), "serve", "--config", str(config)) as unit:
            with unit.running() as channel:
                api_pb2_grpc.ImageServiceStub(channel).PullImage(api.PullImageRequest(image=api.ImageSpec(image=reference)))
                runtime = api_pb2_grpc.RuntimeServiceStub(channel)
                sandbox, container = _run_pod(runtime, reference)
                pod = runtime.PodSandboxStatus(api.PodSandboxStatusRequest(pod_sandbox_id=sandbox, verbose=True))
                monitor = json.loads(pod.info["info"])["pid"]
                program = _pid(runtime, container)
            assert unit.processes() <= {monitor}
            assert [_is_running(pid) for pid in (monitor, program)] == [True, True]
            with unit.running() as channel:
                runtime = api_pb2_grpc.RuntimeServiceStub(channel)
                assert _pid(runtime, container) == program
                answer = runtime.ExecSync(api.ExecSyncRequest(container_id=container, cmd=["echo", "there"], timeout=_SECONDS))
                assert answer.stdout == b"there\n"
                runtime.RemovePodSandbox(api.RemovePodSandboxRequest(pod_sandbox_id=sandbox))
                assert [_is_running(pid) for pid in (monitor, program)] == [False, False]
            assert unit.processes() == set()
    finally:
        registry.close()
        mounts.unmount_below(str(tmp_path))


def _run_pod(runtime: api_pb2_grpc.RuntimeServiceStub, reference: str) -> tuple[str, str]:
    pod = api.PodSandboxConfig(
        metadata=api.PodSandboxMetadata(name="unit", uid="unit", namespace="default"),
        linux=api.LinuxPodSandboxConfig(cgroup_parent="/trivet-unit"),
    )
    sandbox = runtime.RunPodSandbox(api.RunPodSandboxRequest(config=pod)).pod_sandbox_id
    config = api.ContainerConfig(
        metadata=api.ContainerMetadata(name="sleeper"), image=api.ImageSpec(image=reference), command=["sleep", "1000000"]
    )
    request = api.CreateContainerRequest(pod_sandbox_id=sandbox, config=config, sandbox_config=pod)
    container = runtime.CreateContainer(request).container_id
    runtime.StartContainer(api.StartContainerRequest(container_id=container))
    return sandbox, container


def _pid(runtime: api_pb2_grpc.RuntimeServiceStub, container: str) -> int:
    """Of a container that runs."""
    answer = runtime.ContainerStatus(api.ContainerStatusRequest(container_id=container, verbose=True))
    assert answer.status.state == api.CONTAINER_RUNNING
    return int(json.loads(answer.info["info"])["pid"])


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def test_volumes_outlive_the_unit(tmp_path: Path) -> None:
    """Stopped, nothing is left of it but what it has mounted, which is used meanwhile; started again it gives it back."""
    socket, config, kubelet = tmp_path / "csi.sock", tmp_path / "config.yaml", tmp_path / "kubelet"
    staging, target = kubelet / "staging", kubelet / "pod"
    staging.mkdir(parents=True)
    settings = {
        "endpoint": f"unix://{socket}", "root": str(tmp_path / "root"), "kubelet-dir": str(kubelet), "attach": False,
        "registration": False,
    }  # fmt: skip
    config.write_text(yaml.safe_dump({"csi": settings}))
    how = capability(fs_type="ext4")
    with _unit("trivet-csi.service", socket, str(_BIN / "trivet-csi"), "serve", "--config", str(config)) as unit:
        with unit.running() as channel:
            request = csi.CreateVolumeRequest(
                name="one", volume_capabilities=[how], capacity_range=csi.CapacityRange(required_bytes=64 * MIB)
            )
            volume = csi_pb2_grpc.ControllerStub(channel).CreateVolume(request).volume.volume_id
            where = {"volume_id": volume, "staging_target_path": str(staging), "volume_capability": how}
            node = csi_pb2_grpc.NodeStub(channel)
            node.NodeStageVolume(csi.NodeStageVolumeRequest(**where))
            node.NodePublishVolume(csi.NodePublishVolumeRequest(target_path=str(target), **where))
            (target / "file").write_text("first")
        assert unit.processes() == set()
        assert (target / "file").read_text() == "first"
        (target / "file").write_text("second")
        with unit.running() as channel:
            node = csi_pb2_grpc.NodeStub(channel)
            node.NodePublishVolume(csi.NodePublishVolumeRequest(target_path=str(target), **where))
            assert (target / "file").read_text() == "second"
            node.NodeUnpublishVolume(csi.NodeUnpublishVolumeRequest(volume_id=volume, target_path=str(target)))
            node.NodeUnstageVolume(csi.NodeUnstageVolumeRequest(volume_id=volume, staging_target_path=str(staging)))
            assert str(kubelet) not in Path("/proc/self/mountinfo").read_text()
            csi_pb2_grpc.ControllerStub(channel).DeleteVolume(csi.DeleteVolumeRequest(volume_id=volume))
