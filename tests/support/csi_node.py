"""The node service of trivet-csi in this process, in a mount namespace of its own, and calls as a kubelet makes them."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.node.table import NODE
from csi_driver.records import ids
from csi_driver.records.flusher import Flusher
from csi_driver.records.releases import releasers
from csi_driver.records.schema import Records, VolumeRecord
from csi_driver.service import Service
from csi_driver.settings import Settings
from runtime_core.kernel import mounts, syscalls
from runtime_core.log import Log
from runtime_core.serving.rpc_handler import Call
from runtime_core.store.database import Database
from runtime_core.store.ledger import Ledger
from tests.support.tmpfs_backend import TmpfsBackend

Mode = csi.VolumeCapability.AccessMode
SIZE = 4 << 20
_CLONE_FS = 0x200


@contextmanager
def own_mounts() -> Iterator[None]:
    """Within the block what is mounted is this process's alone. Its threads have to be started within."""
    home = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    directory = os.getcwd()
    try:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
        try:
            yield
        finally:
            syscalls.unshare(_CLONE_FS)  # a thread that has just ended may still share what setns(2) wants for itself
            syscalls.setns(home, syscalls.CLONE_NEWNS)
            os.chdir(directory)
    finally:
        os.close(home)


def capability(
    mode: int = Mode.SINGLE_NODE_WRITER, *, block: bool = False, fs_type: str = "", flags: tuple[str, ...] = (), group: str = ""
) -> csi.VolumeCapability:
    access_mode = csi.VolumeCapability.AccessMode(mode=mode)  # type: ignore[arg-type]
    if block:
        return csi.VolumeCapability(block=csi.VolumeCapability.BlockVolume(), access_mode=access_mode)
    mount = csi.VolumeCapability.MountVolume(fs_type=fs_type, mount_flags=flags, volume_mount_group=group)
    return csi.VolumeCapability(mount=mount, access_mode=access_mode)


class NodeService:
    """`stop` and `start` are a restart of the driver; what is mounted stays."""

    def __init__(self, directory: Path, make_backend: Callable[..., Any] = TmpfsBackend, **settings: Any) -> None:
        self.kubelet, self.root = directory / "kubelet", directory / "root"
        for path in (self.kubelet / "staging", self.kubelet / "pods", self.root / "backend"):
            path.mkdir(parents=True)
        self.settings = Settings(
            root=self.root, kubelet_dir=self.kubelet, node_id="n1", **{"attach": False, "registration": False, **settings}
        )
        self._make_backend = make_backend
        self.log = io.StringIO()
        self.start()

    def start(self) -> None:
        self._database = Database(self.root)
        records = Records.load(self._database)
        self.backend: Any = self._make_backend(str(self.root / "backend"), {})
        self.service = Service(
            settings=self.settings, node_id="n1", backend=self.backend, records=records,
            ledger=Ledger(self._database, releasers(self.backend, records)), store=Flusher(self.root),
            log=Log("debug", stream=self.log),
        )  # fmt: skip

    def stop(self) -> None:
        self.service.store.close()
        self._database.close()

    def volume(self, *, block: bool = False, size: int = SIZE, fs_type: str = "", **fields: Any) -> str:
        """A volume that the controller service has made."""
        volume_id = ids.new_volume_id()
        fs_type = "" if block else fs_type or self.backend.features().file_systems[0]
        record = VolumeRecord(
            id=volume_id,
            name=volume_id,
            size=size,
            access="block" if block else "mount",
            fs_type=fs_type,
            phase="ready",
            **fields,
        )
        self.backend.create(record.volume(), None)
        self.service.records.volumes.put(volume_id, record)
        return volume_id

    def record(self, volume_id: str) -> VolumeRecord:
        return self.service.records.volumes.get(volume_id)

    def staging(self, volume_id: str) -> str:
        path = self.kubelet / "staging" / volume_id
        path.mkdir(exist_ok=True)
        return str(path)

    def target(self, name: str = "pod") -> str:
        return str(self.kubelet / "pods" / name)

    def call(self, rpc: str, **fields: Any) -> Any:
        request = getattr(csi, f"{rpc}Request")(**fields)
        return NODE[rpc](self.service, request, Call(rpc, lambda: None))

    def stage(self, volume_id: str, **fields: Any) -> None:
        fields = {"volume_capability": capability(), "staging_target_path": self.staging(volume_id), **fields}
        self.call("NodeStageVolume", volume_id=volume_id, **fields)

    def unstage(self, volume_id: str) -> None:
        self.call("NodeUnstageVolume", volume_id=volume_id, staging_target_path=self.staging(volume_id))

    def publish(self, volume_id: str, target: str = "pod", **fields: Any) -> str:
        path = self.target(target)
        fields = {
            "volume_capability": capability(),
            "staging_target_path": self.staging(volume_id),
            "target_path": path,
            **fields,
        }
        self.call("NodePublishVolume", volume_id=volume_id, **fields)
        return path

    def publish_inline(self, name: str, target: str = "pod", context: dict[str, str] | None = None, **fields: Any) -> str:
        path = self.target(target)
        fields = {"volume_capability": capability(), "target_path": path, **fields}
        fields["volume_context"] = {"csi.storage.k8s.io/ephemeral": "true", "size": "2Mi", **(context or {})}
        self.call("NodePublishVolume", volume_id=name, **fields)
        return path

    def unpublish(self, volume_id: str, target: str = "pod") -> None:
        self.call("NodeUnpublishVolume", volume_id=volume_id, target_path=self.target(target))

    def held(self) -> list[tuple[str, str]]:
        return [(entry.kind, entry.reference) for entry in self.service.ledger.held()]

    def mounted(self) -> list[str]:
        """Mount points below the kubelet's directory, relative to it."""
        prefix = str(self.kubelet) + "/"
        return sorted(point.removeprefix(prefix) for point in mounts.current_mount_points() if point.startswith(prefix))

    def close(self) -> None:
        self.stop()
        mounts.unmount_below(str(self.kubelet))
        for record in self.service.records.volumes.all():
            self.backend.detach(record.id)
