"""./run bench csi: a volume's life with each back end beside the Go hostpath driver, interleaved, with the ratios of medians."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import yaml

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.api.v1 import csi_pb2_grpc as stubs
from e2e.wait import wait_for
from runtime_core.kernel import loop_device, mounts, syscalls
from runtime_core.registry import installed

Samples = dict[str, dict[str, list[float]]]
_GO = "hostpathplugin"
_SIZE = 64 << 20
_DISK = 4 << 30
_STEPS = ("create", "stage", "publish", "unpublish", "unstage", "delete")
#: back end → (parameters that make it do what the Go driver does, kinds of volumes)
_BACKENDS: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "directory": ({"enforcement": "none"}, ("mount",)),
    "btrfs": ({}, ("mount",)),
    "loop": ({}, ("mount", "block")),
}


class Driver:
    """A CSI driver on private directories."""

    def __init__(self, name: str, home: Path, parameters: dict[str, str], kinds: tuple[str, ...]) -> None:
        self.name, self.home, self.parameters, self.kinds = name, home, parameters, kinds
        self.kubelet, self._socket = home / "kubelet", home / "csi.sock"
        for directory in ("staging", "pods"):
            (self.kubelet / directory).mkdir(parents=True)
        with (home / "log").open("wb") as log:
            self._process = subprocess.Popen(self._command(), stdout=log, stderr=log)
        self._channel = grpc.insecure_channel(f"unix://{self._socket}")
        self._controller, self._node = stubs.ControllerStub(self._channel), stubs.NodeStub(self._channel)
        wait_for(f"{name}: {home / 'log'}", self._answers, 30)

    def _command(self) -> list[str]:
        config = {
            "endpoint": f"unix://{self._socket}", "root": str(self.home / "root"), "kubelet-dir": str(self.kubelet),
            "backend": self.name, "registration": False, "attach": False,
        }  # fmt: skip
        (self.home / "config.yaml").write_text(yaml.safe_dump({"csi": config}))
        return [sys.executable, "-m", "csi_driver", "serve", "--config", str(self.home / "config.yaml")]

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise SystemExit(f"{self.name} ended: {(self.home / 'log').read_text()[-1000:]}")
        try:
            self._node.NodeGetInfo(csi.NodeGetInfoRequest(), timeout=1)
        except grpc.RpcError:
            return False
        return True

    def create(self, name: str, kind: str) -> str:
        request = csi.CreateVolumeRequest(
            name=name, capacity_range=csi.CapacityRange(required_bytes=_SIZE), volume_capabilities=[_capability(kind)],
            parameters=self.parameters,
        )  # fmt: skip
        return str(self._controller.CreateVolume(request).volume.volume_id)

    def life(self, name: str, kind: str) -> dict[str, float]:
        """Milliseconds by step."""
        how, target = _capability(kind), str(self.kubelet / "pods" / name)
        staging = str(self.kubelet / "staging" / name)
        os.mkdir(staging)
        times = [time.monotonic()]

        def timed(call: Callable[[Any], Any], request: Any) -> None:
            call(request)
            times.append(time.monotonic())

        volume = self.create(name, kind)
        times.append(time.monotonic())
        where = {"volume_id": volume, "staging_target_path": staging}
        node = self._node
        timed(node.NodeStageVolume, csi.NodeStageVolumeRequest(**where, volume_capability=how))
        timed(node.NodePublishVolume, csi.NodePublishVolumeRequest(**where, target_path=target, volume_capability=how))
        timed(node.NodeUnpublishVolume, csi.NodeUnpublishVolumeRequest(volume_id=volume, target_path=target))
        timed(node.NodeUnstageVolume, csi.NodeUnstageVolumeRequest(**where))
        timed(self._controller.DeleteVolume, csi.DeleteVolumeRequest(volume_id=volume))
        found = dict(zip(_STEPS, ((end - start) * 1000 for start, end in pairwise(times)), strict=True))
        found["stage to unstage"] = sum(found[step] for step in _STEPS[1:5])
        found["create + delete"] = found["create"] + found["delete"]
        found["whole life"] = found["stage to unstage"] + found["create + delete"]
        return found

    def restaged(self, name: str) -> float:
        """Stage to unstage of a volume that was in use before: its file system is made already."""
        volume, how = self.create(name, "mount"), _capability("mount")
        staging = str(self.kubelet / "staging" / name)
        os.mkdir(staging)
        where = {"volume_id": volume, "staging_target_path": staging}
        target = str(self.kubelet / "pods" / name)
        for _turn in range(2):
            started = time.monotonic()
            self._node.NodeStageVolume(csi.NodeStageVolumeRequest(**where, volume_capability=how))
            self._node.NodePublishVolume(csi.NodePublishVolumeRequest(**where, target_path=target, volume_capability=how))
            self._node.NodeUnpublishVolume(csi.NodeUnpublishVolumeRequest(volume_id=volume, target_path=target))
            self._node.NodeUnstageVolume(csi.NodeUnstageVolumeRequest(**where))
            took = (time.monotonic() - started) * 1000
        self._controller.DeleteVolume(csi.DeleteVolumeRequest(volume_id=volume))
        return took

    def crowd(self, count: int, kind: str) -> float:
        """Milliseconds for `count` volumes made at once."""
        started = time.monotonic()
        with ThreadPoolExecutor(16) as pool:
            made = list(pool.map(lambda number: self.create(f"crowd{number}", kind), range(count)))
        took = (time.monotonic() - started) * 1000
        for volume in made:
            self._controller.DeleteVolume(csi.DeleteVolumeRequest(volume_id=volume))
        return took

    def close(self) -> None:
        self._channel.close()
        self._process.terminate()
        self._process.wait(30)


class GoDriver(Driver):
    """kubernetes-csi/csi-driver-host-path."""

    def _command(self) -> list[str]:
        (self.home / "root").mkdir()
        return [
            str(shutil.which(_GO)), "--endpoint", f"unix://{self._socket}", "--nodeid", "bench",
            "--statedir", str(self.home / "root"), "--v", "0",
        ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--crowd", type=int, default=50, help="volumes made at once")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    samples: Samples = defaultdict(lambda: defaultdict(list))
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    with ExitStack() as closing:
        home = Path(tempfile.mkdtemp(prefix="bench-csi-"))
        closing.callback(shutil.rmtree, home, ignore_errors=True)
        closing.callback(mounts.unmount_below, str(home))
        drivers = _drivers(home, closing)
        for number in range(-1, arguments.rounds):
            for driver in drivers if number % 2 else reversed(drivers):
                for kind in driver.kinds:
                    found = driver.life(f"{kind}{number}", kind)
                    for what, took in found.items() if number >= 0 else ():
                        samples[f"{kind}: {what}, ms"][driver.name].append(took)
                if number >= 0 and driver.name != _GO:
                    samples["mount, used before: stage to unstage, ms"][driver.name].append(driver.restaged(f"again{number}"))
        for driver in drivers:
            for kind in driver.kinds:
                samples[f"{kind}: {arguments.crowd} creates at once, ms"][driver.name].append(driver.crowd(arguments.crowd, kind))
    _print(samples, [driver.name for driver in drivers])
    if arguments.json:
        arguments.json.write_text(json.dumps(samples))


def _drivers(home: Path, closing: ExitStack) -> list[Driver]:
    found: list[Driver] = []
    there = {driver.name for driver in installed("volume")}
    for name, (parameters, kinds) in _BACKENDS.items():
        if name not in there:
            print(f"{name}: this back end is not installed")
            continue
        if name == "btrfs":
            _make_btrfs(home / name, closing)
        found.append(Driver(name, _directory(home / name), parameters, kinds))
        closing.callback(found[-1].close)
    if shutil.which(_GO):
        found.append(GoDriver(_GO, _directory(home / _GO), {}, ("mount", "block")))
        closing.callback(found[-1].close)
    else:
        print(f"{_GO} (kubernetes-csi/csi-driver-host-path) is not on the PATH: no ratios")
    return found


def _make_btrfs(home: Path, closing: ExitStack) -> None:
    """A disk of its own: the back end needs the file system."""
    image = home.parent / "btrfs.img"
    with image.open("wb") as file:
        file.truncate(_DISK)
    subprocess.run(["mkfs.btrfs", "-q", str(image)], check=True, capture_output=True)
    number = loop_device.attach(str(image), read_only=False)
    closing.callback(loop_device.detach, number)
    home.mkdir()
    syscalls.mount(loop_device.device_node(number), str(home), "btrfs")
    closing.callback(syscalls.umount2, str(home), syscalls.MNT_DETACH)


def _directory(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    return path


def _capability(kind: str) -> csi.VolumeCapability:
    mode = csi.VolumeCapability.AccessMode(mode=csi.VolumeCapability.AccessMode.SINGLE_NODE_WRITER)
    if kind == "block":
        return csi.VolumeCapability(block=csi.VolumeCapability.BlockVolume(), access_mode=mode)
    return csi.VolumeCapability(mount=csi.VolumeCapability.MountVolume(), access_mode=mode)


def _print(samples: Samples, names: list[str]) -> None:
    """Medians; in brackets the ratio to the Go driver's."""
    print(f"{'':44}" + "".join(f"{name:>22}" for name in names))
    for what, by_driver in samples.items():
        row = f"{what:44}"
        theirs = statistics.median(by_driver[_GO]) if by_driver.get(_GO) else 0.0
        for name in names:
            if not by_driver.get(name):
                row += f"{'-':>22}"
                continue
            median = statistics.median(by_driver[name])
            ratio = f" ({median / theirs:.2f})" if theirs and name != _GO else ""
            row += f"{f'{median:.2f}{ratio}':>22}"
        print(row)


if __name__ == "__main__":
    main()
