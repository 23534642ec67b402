"""A trivet-csi of a test's own, on private directories, and a client of its socket."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import yaml

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.api.v1 import csi_pb2_grpc as stubs
from runtime_core.kernel import loop_device

_ROOT = Path(__file__).parents[2]
NODE, DRIVER = "node-a", "hostpath.csi.trivet.dev"
MIB = 1 << 20
Mode = csi.VolumeCapability.AccessMode
_MOUNT = csi.VolumeCapability.MountVolume


class CsiDaemon:
    """`settings` are those of the configuration file; the back end is tests/support/memory_backend.py unless they say else."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.directory = directory
        self.root, self.kubelet = directory / "root", directory / "kubelet"
        self.socket = directory / "csi.sock"
        self.kubelet.mkdir(exist_ok=True)
        self._settings = {
            "endpoint": f"unix://{self.socket}",
            "node-id": NODE,
            "root": str(self.root),
            "kubelet-dir": str(self.kubelet),
            "backend": "memory",
            "registration": False,
            **{key.replace("_", "-"): value for key, value in settings.items()},
        }
        self._process: subprocess.Popen[str] | None = None
        self._channel: grpc.Channel | None = None
        _declare_memory_backend(directory / "site")

    def start(self, failpoints: str = "", **environment: str) -> None:
        """Until it serves; RuntimeError with what it said when it does not."""
        config = self.directory / "config.yaml"
        config.write_text(yaml.safe_dump({"csi": self._settings}))
        with (self.directory / "log").open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "csi_driver", "serve", "--config", str(config)],
                cwd=_ROOT,
                env={
                    **os.environ,
                    "PYTHONPATH": f"{_ROOT}:{self.directory / 'site'}",
                    "TRIVET_FAILPOINTS": failpoints,
                    **environment,
                },
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        if "is ready on" not in self._process.stdout.readline():
            self._end()
            raise RuntimeError((self.directory / "log").read_text().splitlines()[-1])
        self._channel = grpc.insecure_channel(f"unix://{self.socket}")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._end()

    def stop(self) -> int:
        self.terminate()
        return self._end()

    def terminate(self) -> None:
        assert self._process is not None
        self._process.terminate()

    def wait(self) -> int:
        """Of a daemon that ends by itself."""
        return self._end()

    def log(self) -> str:
        return (self.directory / "log").read_text()

    @property
    def channel(self) -> grpc.Channel:
        assert self._channel is not None
        return self._channel

    @property
    def identity(self) -> Any:
        return stubs.IdentityStub(self.channel)

    @property
    def controller(self) -> Any:
        return stubs.ControllerStub(self.channel)

    @property
    def groups(self) -> Any:
        return stubs.GroupControllerStub(self.channel)

    @property
    def metadata(self) -> Any:
        return stubs.SnapshotMetadataStub(self.channel)

    def create(self, name: str, size: int = MIB, **more: Any) -> csi.Volume:
        return self.controller.CreateVolume(create_request(name, size, **more)).volume

    def snapshot(self, name: str, volume_id: str) -> csi.Snapshot:
        request = csi.CreateSnapshotRequest(name=name, source_volume_id=volume_id)
        return self.controller.CreateSnapshot(request).snapshot

    def _end(self) -> int:
        assert self._process is not None
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        code = self._process.wait(timeout=30)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None
        return code

    def close(self) -> None:
        """What is still attached is detached: a test may end in the middle of a volume's life."""
        if self._process is not None:
            self.kill()
        for image in Path(str(self._settings["root"])).glob("*/volumes/*/image"):
            for number in loop_device.find(str(image)):
                loop_device.detach(number)


@contextmanager
def daemon(directory: Path, **settings: Any) -> Iterator[CsiDaemon]:
    made = CsiDaemon(directory, **settings)
    try:
        made.start()
        yield made
    finally:
        made.close()


def capability(kind: str = "mount", mode: int = Mode.SINGLE_NODE_WRITER, fs_type: str = "", **more: Any) -> csi.VolumeCapability:
    access = {"mount": _MOUNT(fs_type=fs_type, **more)} if kind == "mount" else {"block": csi.VolumeCapability.BlockVolume()}
    return csi.VolumeCapability(access_mode=Mode(mode=mode), **access)


def create_request(name: str, size: int = MIB, **more: Any) -> csi.CreateVolumeRequest:
    more.setdefault("volume_capabilities", [capability()])
    if size:
        more.setdefault("capacity_range", csi.CapacityRange(required_bytes=size))
    return csi.CreateVolumeRequest(name=name, **more)


def from_snapshot(snapshot_id: str) -> csi.VolumeContentSource:
    return csi.VolumeContentSource(snapshot=csi.VolumeContentSource.SnapshotSource(snapshot_id=snapshot_id))


def from_volume(volume_id: str) -> csi.VolumeContentSource:
    return csi.VolumeContentSource(volume=csi.VolumeContentSource.VolumeSource(volume_id=volume_id))


def _declare_memory_backend(site: Path) -> None:
    """As an installed distribution would."""
    described = site / "trivet_memory-0.dist-info"
    described.mkdir(parents=True, exist_ok=True)
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: trivet-memory\nVersion: 0\n")
    (described / "entry_points.txt").write_text("[trivet.volume]\nmemory = tests.support.memory_backend:MemoryBackend\n")
