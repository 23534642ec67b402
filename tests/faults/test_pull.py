"""The daemon and the unpack worker killed at every step of a pull: nothing half-made is seen, nothing whole comes twice."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from cri.api.v1 import api_pb2 as api
from e2e.wait import wait_for
from tests.support.hostile_registry import HostileRegistry, hang
from trivet.demo.node import DemoNode

_CONTENT = {name: os.urandom(1 << 20) for name in ("one", "two", "three")}
_PLAIN = "application/vnd.oci.image.layer.v1.tar"


@pytest.fixture
def registry() -> Iterator[HostileRegistry]:
    registry = HostileRegistry()
    yield registry
    registry.close()


@pytest.fixture
def node() -> Iterator[DemoNode]:
    node = DemoNode()
    yield node
    node.close()


class Disk:
    """What a node has of images."""

    def __init__(self, node: DemoNode) -> None:
        self._root = node.directory / "root"

    def blobs(self) -> dict[str, Path]:
        return {f"sha256:{path.name}": path for path in (self._root / "content/blobs/sha256").iterdir()}

    def damaged(self) -> list[str]:
        return [d for d, path in self.blobs().items() if hashlib.sha256(path.read_bytes()).hexdigest() != d.partition(":")[2]]

    def partial(self) -> dict[str, int]:
        return {path.name.replace("-", ":"): path.stat().st_size for path in (self._root / "content/ingest").iterdir()}

    def stages(self) -> list[str]:
        return os.listdir(self._root / "overlayfs/stage")

    def layers(self) -> dict[str, bytes]:
        """Name → content of the one file that each committed layer has."""
        return {file.name: file.read_bytes() for file in self._root.glob("overlayfs/layers/*/fs/*")}


@pytest.mark.parametrize(
    "point",
    [
        "pull.received=kill", "pull.received=kill:4", "content.commit=kill", "content.commit=kill:4", "content.committed=kill:2",
        "content.committed=kill:4", "pull.fetched=kill", "pull.fetched=kill:3", "layer.staged=kill", "layer.staged=kill:2",
        "unpack.entry=kill", "layer.unpacked=kill", "layer.unpacked=kill:3", "snapshotter.commit.before=kill:2",
        "layer.committed=kill", "layer.committed=kill:3", "image.pulled=kill", "image.recorded=kill",
    ],
)  # fmt: skip
def test_killed_at_any_step_of_a_pull(
    point: str, node: DemoNode, registry: HostileRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the next start no half of it is to be seen; the next pull succeeds and asks for what is missing alone."""
    layers = [_layer(name) for name in _CONTENT]
    reference = registry.put_image("t/x", "1", layers, {})
    disk = Disk(node)
    monkeypatch.setenv("TRIVET_FAILPOINTS", point)
    node.start()
    with pytest.raises(grpc.RpcError):
        _pull(node, reference)
    monkeypatch.delenv("TRIVET_FAILPOINTS")
    node.kill()
    whole, unpacked, partial = set(disk.blobs()), set(disk.layers()), disk.partial()
    node.start()
    assert disk.damaged() == []
    assert disk.stages() == []
    assert all(disk.layers()[name] == _CONTENT[name] for name in disk.layers())
    assert unpacked <= set(disk.layers())
    assert whole == set(disk.blobs())
    listed = node.images().ListImages(api.ListImagesRequest()).images
    assert [image.repo_tags for image in listed] == ([[reference]] if point.startswith("image.recorded") else [])
    registry.behave()
    _pull(node, reference)
    assert disk.layers() == _CONTENT
    assert disk.partial() == {}
    asked = {asked.path.rpartition("/")[2]: asked.headers.get("Range") for asked in registry.asked if "/blobs/" in asked.path}
    assert not whole & set(asked)
    for blob, _tar, _kind in layers:
        have = partial.get(_digest(blob), 0)
        if 0 < have < len(blob):
            assert asked[_digest(blob)] == f"bytes={have}-"
        elif have:
            assert _digest(blob) not in asked  # all of it was there, and only not yet in its place


def test_a_worker_that_dies_fails_the_pull_alone(
    node: DemoNode, registry: HostileRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """UNAVAILABLE, with the image and the layer; the same daemon then pulls what is missing."""
    layers = [_layer(name) for name in _CONTENT]
    reference = registry.put_image("t/x", "1", layers, {})
    monkeypatch.setenv("TRIVET_FAILPOINTS", "unpack.entry=kill")
    node.start()
    for _attempt in range(2):  # each worker is a new one, and dies
        with pytest.raises(grpc.RpcError) as refused:
            _pull(node, reference)
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        assert reference in refused.value.details()
        assert (
            f"sha256:{hashlib.sha256(layers[0][1]).hexdigest()}: the worker that unpacked it has died" in refused.value.details()
        )
    disk = Disk(node)
    assert disk.stages() == []
    assert disk.layers() == {}
    assert registry.count(f"/blobs/{_digest(layers[0][0])}") == 1


def test_a_pull_that_waits_does_not_keep_the_daemon_from_ending(node: DemoNode, registry: HostileRegistry) -> None:
    """SIGTERM ends it after the time for calls under way; the next daemon goes on where the pull was."""
    large = _layer("one")
    reference = registry.put_image("t/x", "1", [large], {})
    registry.misbehave(_digest(large[0]), hang(500_000))
    node.start()
    with ThreadPoolExecutor(1) as pool:
        pulling = pool.submit(_pull, node, reference)
        wait_for("bytes", lambda: Disk(node).partial().get(_digest(large[0])), 10)
        node._end(signal.SIGTERM)
        assert pulling.exception() is not None
    registry.behave()
    node.start()
    _pull(node, reference)
    assert [asked.headers.get("Range") for asked in registry.asked if _digest(large[0]) in asked.path] == ["bytes=500000-"]


def _pull(node: DemoNode, reference: str) -> None:
    node.images().PullImage(api.PullImageRequest(image=api.ImageSpec(image=reference)), timeout=30)


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _layer(name: str) -> tuple[bytes, bytes, str]:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(_CONTENT[name])
        archive.addfile(member, io.BytesIO(_CONTENT[name]))
    return buffer.getvalue(), buffer.getvalue(), _PLAIN
