"""containerd and umoci, as far as they unpack an image that is theirs to read."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from cri.api.v1 import api_pb2 as api
from cri.api.v1 import api_pb2_grpc
from e2e.peers.build import build
from e2e.wait import wait_for
from runtime_core.images.manifest import machine_platform
from runtime_core.kernel import mounts

_SNAPSHOTS = "root/io.containerd.snapshotter.v1.overlayfs/snapshots"
_CONFIG = """
version = 3
root = "{home}/root"
state = "{home}/state"
[grpc]
  address = "{home}/c.sock"
[ttrpc]
  address = "{home}/t.sock"
"""


class Containerd:
    """A daemon on a private directory, with its image service alone in use."""

    def __init__(self, home: Path) -> None:
        self._home = home
        (home / "config.toml").write_text(_CONFIG.format(home=home))
        self._log = (home / "log").open("wb")
        command = [str(build("containerd")), "--config", str(home / "config.toml")]
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log)
        self._channel = grpc.insecure_channel(f"unix://{home}/c.sock")
        self._images: Any = api_pb2_grpc.ImageServiceStub(self._channel)  # type: ignore[no-untyped-call]
        wait_for("containerd", self._answers, 60)

    @contextmanager
    def unpacked(self, reference: str) -> Iterator[Path]:
        """The image's tree, read-only; grpc.RpcError when containerd refuses it. Its layers must be new to it."""
        before = self._snapshots()
        self._images.PullImage(api.PullImageRequest(image=api.ImageSpec(image=reference)))
        added = sorted(self._snapshots() - before, reverse=True)  # numbered as they were made: base layer first
        lower = [str(self._home / _SNAPSHOTS / str(number) / "fs") for number in added]
        # overlayfs wants two; an empty one changes nothing
        (self._home / "empty").mkdir(exist_ok=True)
        mounted = mounts.overlay([*lower, str(self._home / "empty")], "", "")
        try:
            yield Path(f"/proc/self/fd/{mounted}")
        finally:
            os.close(mounted)

    def close(self) -> None:
        self._channel.close()
        self._process.terminate()
        self._process.wait(30)
        self._log.close()
        mounts.unmount_below(str(self._home))

    def _snapshots(self) -> set[int]:
        directory = self._home / _SNAPSHOTS
        return {int(entry.name) for entry in directory.iterdir() if entry.name.isdecimal()} if directory.exists() else set()

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self._home / "log").read_text()[-2000:]
        try:
            self._images.ListImages(api.ListImagesRequest())
        except grpc.RpcError:
            return False
        return True


@contextmanager
def umoci_unpacked(layers: list[bytes], directory: Path) -> Iterator[Path]:
    """The tree that umoci makes of the layers; subprocess.CalledProcessError when it refuses them."""
    layout = directory / "layout"
    (layout / "blobs" / "sha256").mkdir(parents=True)
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    descriptors = [_put(layout, layer, "application/vnd.oci.image.layer.v1.tar") for layer in layers]
    rootfs = {"type": "layers", "diff_ids": [descriptor["digest"] for descriptor in descriptors]}
    config = {"architecture": machine_platform()[0], "os": "linux", "config": {}, "rootfs": rootfs}
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _put(layout, json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": descriptors,
    }
    entry = _put(layout, json.dumps(manifest).encode(), manifest["mediaType"])
    entry["annotations"] = {"org.opencontainers.image.ref.name": "x"}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    bundle = directory / "bundle"
    subprocess.run(["umoci", "unpack", "--image", f"{layout}:x", str(bundle)], check=True, capture_output=True, text=True)
    yield bundle / "rootfs"


def _put(layout: Path, content: bytes, media_type: str) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    (layout / "blobs" / "sha256" / digest).write_bytes(content)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}
