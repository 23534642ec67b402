"""A trivet-csi over images in the mount namespace of a test, and volumes of it that are attached, staged and published."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.api.v1 import csi_pb2_grpc as stubs
from runtime_core.kernel import loop_device, mounts
from tests.support.csi_daemon import MIB, NODE, CsiDaemon, capability
from tests.support.csi_lifecycle import devices, leftovers
from tests.support.csi_node import own_mounts

SIZE = 64 * MIB
INLINE = {"csi.storage.k8s.io/ephemeral": "true", "size": "16Mi"}


class Pods:
    """What a kubelet asks of the driver."""

    def __init__(self, daemon: CsiDaemon) -> None:
        self.daemon = daemon
        self.how: dict[str, csi.VolumeCapability] = {}

    @property
    def node(self) -> Any:
        return stubs.NodeStub(self.daemon.channel)

    def target(self, name: str) -> Path:
        return self.daemon.kubelet / "pods" / name

    def create(self, name: str, how: csi.VolumeCapability | None = None, size: int = SIZE, **more: Any) -> str:
        """A volume that is attached and staged."""
        how = how or capability()
        volume = str(self.daemon.create(name, size, volume_capabilities=[how], **more).volume_id)
        self.how[volume] = how
        self.stage(volume)
        return volume

    def stage(self, volume: str) -> None:
        how = self.how[volume]
        attach = csi.ControllerPublishVolumeRequest(volume_id=volume, node_id=NODE, volume_capability=how)
        self.daemon.controller.ControllerPublishVolume(attach)
        self.node.NodeStageVolume(
            csi.NodeStageVolumeRequest(volume_id=volume, staging_target_path=self._staging(volume), volume_capability=how)
        )

    def publish(self, volume: str, name: str = "", **more: Any) -> Path:
        target = self.target(name or volume)
        where = {"staging_target_path": self._staging(volume), "target_path": str(target), "volume_capability": self.how[volume]}
        self.node.NodePublishVolume(csi.NodePublishVolumeRequest(volume_id=volume, **{**where, **more}))
        return target

    def publish_inline(self, volume: str, name: str) -> Path:
        request = csi.NodePublishVolumeRequest(
            volume_id=volume, target_path=str(self.target(name)), volume_capability=capability(), volume_context=INLINE
        )
        self.node.NodePublishVolume(request)
        return self.target(name)

    def unpublish(self, volume: str, name: str = "") -> None:
        request = csi.NodeUnpublishVolumeRequest(volume_id=volume, target_path=str(self.target(name or volume)))
        self.node.NodeUnpublishVolume(request)

    def unstage(self, volume: str) -> None:
        self.node.NodeUnstageVolume(csi.NodeUnstageVolumeRequest(volume_id=volume, staging_target_path=self._staging(volume)))
        self.daemon.controller.ControllerUnpublishVolume(csi.ControllerUnpublishVolumeRequest(volume_id=volume, node_id=NODE))

    def delete(self, volume: str) -> None:
        self.daemon.controller.DeleteVolume(csi.DeleteVolumeRequest(volume_id=volume))

    def end(self, *volumes: str) -> None:
        """Of volumes published at their own name; nothing is left."""
        for volume in volumes:
            self.unpublish(volume)
            self.unstage(volume)
            self.delete(volume)
        assert leftovers(self.daemon) == []

    def expand(self, volume: str, size: int) -> bool:
        """Whether the node has to follow."""
        wanted = csi.CapacityRange(required_bytes=size)
        request = csi.ControllerExpandVolumeRequest(volume_id=volume, capacity_range=wanted)
        return bool(self.daemon.controller.ControllerExpandVolume(request).node_expansion_required)

    def _staging(self, volume: str) -> str:
        path = self.daemon.kubelet / "staging" / volume
        path.mkdir(exist_ok=True)
        return str(path)


@contextmanager
def pods(directory: Path, **settings: Any) -> Iterator[Pods]:
    with own_mounts():
        daemon = CsiDaemon(directory, **{"backend": "loop", **settings})
        for name in ("staging", "pods"):
            (daemon.kubelet / name).mkdir()
        try:
            daemon.start()
            yield Pods(daemon)
        finally:
            daemon.close()
            mounts.unmount_below(str(daemon.kubelet))
            for number in devices(daemon):
                loop_device.detach(number)


def reboot(daemon: CsiDaemon) -> None:
    """The disk is kept; mounts and loop devices are not."""
    daemon.kill()
    os.sync()
    mounts.unmount_below(str(daemon.kubelet))
    for number in devices(daemon):
        loop_device.detach(number)
    daemon.start()


def code(call: Callable[[], Any]) -> str:
    """The name of the code with which it is refused."""
    with pytest.raises(grpc.RpcError) as refused:
        call()
    return str(refused.value.code().name)
