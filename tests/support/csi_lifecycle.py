"""Every call of the node service, in the kubelet's order, to a trivet-csi over images."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.api.v1 import csi_pb2_grpc as stubs
from runtime_core.kernel import loop_device, mounts
from tests.support.csi_daemon import MIB, NODE, CsiDaemon, capability

SIZE, DEVICE = 16 * MIB, 4 * MIB
CONTENT = os.urandom(MIB)
INLINE = "csi-" + "1" * 64


class Steps:
    """Calls in an order in which each needs those before."""

    steps: list[Callable[[], None]]

    def run(self) -> bool:
        """To the end, or to where the daemon died, which is where the next `run` goes on; whether it died."""
        while self.steps:
            try:
                self.steps[0]()
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.UNAVAILABLE:
                    raise
                return True
            del self.steps[0]
        return False


class Lifecycle(Steps):
    """Every call of the node service for a mount, a block and an inline volume, in the kubelet's order."""

    def __init__(self, daemon: CsiDaemon) -> None:
        self.daemon = daemon
        self.mount = self.block = ""
        self.steps = [
            self.create, self.stage, self.publish, self.publish_inline, self.write, self.expand, self.check,
            self.end_pods, self.unstage, self.stage, self.publish, self.check, self.end_pods, self.unstage, self.delete,
        ]  # fmt: skip

    @property
    def node(self) -> Any:
        return stubs.NodeStub(self.daemon.channel)

    def volumes(self) -> list[tuple[str, csi.VolumeCapability]]:
        both = [(self.mount, capability("mount")), (self.block, capability("block"))]
        return [(volume, how) for volume, how in both if volume]

    def staging(self, volume: str) -> str:
        path = self.daemon.kubelet / "staging" / volume
        path.mkdir(exist_ok=True)
        return str(path)

    def target(self, name: str) -> Path:
        return self.daemon.kubelet / "pods" / name

    def create(self) -> None:
        self.mount = self.daemon.create("m", SIZE).volume_id
        self.block = self.daemon.create("b", DEVICE, volume_capabilities=[capability("block")]).volume_id
        for volume, how in self.volumes():
            self.daemon.controller.ControllerPublishVolume(
                csi.ControllerPublishVolumeRequest(volume_id=volume, node_id=NODE, volume_capability=how)
            )

    def stage(self) -> None:
        for volume, how in self.volumes():
            self.node.NodeStageVolume(
                csi.NodeStageVolumeRequest(volume_id=volume, staging_target_path=self.staging(volume), volume_capability=how)
            )

    def publish(self) -> None:
        for volume, how in self.volumes():
            self.node.NodePublishVolume(
                csi.NodePublishVolumeRequest(
                    volume_id=volume, staging_target_path=self.staging(volume), target_path=str(self.target(volume)),
                    volume_capability=how,
                )
            )  # fmt: skip

    def publish_inline(self) -> None:
        context = {"csi.storage.k8s.io/ephemeral": "true", "size": "16Mi"}
        self.node.NodePublishVolume(
            csi.NodePublishVolumeRequest(
                volume_id=INLINE, target_path=str(self.target("inline")), volume_capability=capability(), volume_context=context
            )
        )

    def write(self) -> None:
        for path in (self.target(self.mount) / "file", self.target("inline") / "file"):
            path.write_bytes(CONTENT)
        write(self.target(self.block), CONTENT)

    def expand(self) -> None:
        for volume, size in ((self.mount, 2 * SIZE), (self.block, 2 * DEVICE)):
            self.daemon.controller.ControllerExpandVolume(
                csi.ControllerExpandVolumeRequest(volume_id=volume, capacity_range=csi.CapacityRange(required_bytes=size))
            )
            try:
                self.node.NodeExpandVolume(
                    csi.NodeExpandVolumeRequest(volume_id=volume, volume_path=str(self.target(volume)))
                )  # fmt: skip
            except grpc.RpcError as error:  # a mounted ext4 grows with CAP_SYS_RESOURCE only
                if error.code() != grpc.StatusCode.FAILED_PRECONDITION:
                    raise
        assert length(self.target(self.block)) == 2 * DEVICE

    def check(self) -> None:
        assert (self.target(self.mount) / "file").read_bytes() == CONTENT
        assert read(self.target(self.block), len(CONTENT)) == CONTENT
        if len(self.steps) < 5:  # staged again since the expansion
            found = os.statvfs(self.target(self.mount))
            assert found.f_blocks * found.f_frsize > 1.5 * SIZE

    def end_pods(self) -> None:
        for volume, _how in self.volumes():
            self.node.NodeUnpublishVolume(
                csi.NodeUnpublishVolumeRequest(volume_id=volume, target_path=str(self.target(volume)))
            )  # fmt: skip
        self.node.NodeUnpublishVolume(csi.NodeUnpublishVolumeRequest(volume_id=INLINE, target_path=str(self.target("inline"))))

    def unstage(self) -> None:
        for volume, _how in self.volumes():
            self.node.NodeUnstageVolume(
                csi.NodeUnstageVolumeRequest(volume_id=volume, staging_target_path=self.staging(volume))
            )  # fmt: skip

    def delete(self) -> None:
        for volume, _how in self.volumes():
            self.daemon.controller.ControllerUnpublishVolume(csi.ControllerUnpublishVolumeRequest(volume_id=volume, node_id=NODE))
            self.daemon.controller.DeleteVolume(csi.DeleteVolumeRequest(volume_id=volume))

    def give_up(self) -> None:
        """The pods are deleted instead."""
        self.steps = [self.end_pods, self.unstage, self.delete]
        assert not self.run()


def write(device: Path, content: bytes) -> None:
    with device.open("r+b", buffering=0) as file:
        file.write(content)
        os.fsync(file.fileno())


def read(device: Path, length: int) -> bytes:
    with device.open("rb", buffering=0) as file:
        return os.pread(file.fileno(), length, 0)


def length(device: Path) -> int:
    assert stat.S_ISBLK(device.stat().st_mode)
    with device.open("rb", buffering=0) as file:
        return os.lseek(file.fileno(), 0, os.SEEK_END)


def leftovers(daemon: CsiDaemon) -> list[str]:
    found = [f"mount {point}" for point in mounts.current_mount_points() if point.startswith(str(daemon.kubelet))]
    found += [f"loop{number}" for number in devices(daemon)]
    found += [f"target {name}" for name in os.listdir(daemon.kubelet / "pods")]
    return found + [f"image {name}" for name in os.listdir(daemon.root / "loop" / "volumes")]


def devices(daemon: CsiDaemon) -> list[int]:
    """Loop devices over the driver's images."""
    numbers = [int(name[4:]) for name in os.listdir("/sys/block") if name.startswith("loop")]
    return [number for number in numbers if loop_device.backing_file(number).startswith(str(daemon.root))]
