"""A node's images on private directories, and a registry that does what a test wants."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plugins.image_verifiers.accept import AcceptAll
from plugins.snapshotters.overlayfs import OverlayfsSnapshotter
from runtime_core.images.store import Images
from runtime_core.launcher.client import Launcher
from runtime_core.store.database import Database
from tests.support.hostile_registry import HostileRegistry

SILENCE, DEADLINE, LARGEST_LAYER = 0.5, 2.0, 8 << 20
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"


def layer(name: str, content: bytes = b"x", *, level: int = 1) -> tuple[bytes, bytes, str]:
    """(blob, tar, media type) of a layer with one file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), level, mtime=0), buffer.getvalue(), LAYER_TYPE


def large_layer(name: str = "large", size: int = 1 << 20) -> tuple[bytes, bytes, str]:
    """One that does not compress."""
    return layer(name, os.urandom(size))


def digest(blob: bytes) -> str:
    return "sha256:" + hashlib.sha256(blob).hexdigest()


class Store:
    """Images that can be closed and opened again, as by a daemon's restart."""

    def __init__(self, directory: Path, launcher: Launcher) -> None:
        self.directory, self._launcher = directory, launcher
        self.open()

    def open(self, **options: Any) -> None:
        self.database = Database(self.directory)
        self.snapshotter = OverlayfsSnapshotter(self.directory / "overlayfs")
        options = {"verifier": AcceptAll(), "deadline": DEADLINE, "registry_directory": self.directory / "registries", **options}
        self.images = Images(
            self.directory, self.database, self.snapshotter, self._launcher,
            silence=SILENCE, largest_layer=LARGEST_LAYER, **options,
        )  # fmt: skip

    def reopen(self, **options: Any) -> None:
        self.database.close()
        self.open(**options)
        self.images.collect_garbage(self.snapshotter.layers_in_use())

    def close(self) -> None:
        self.database.close()

    def blobs(self) -> set[str]:
        return {f"sha256:{path.name}" for path in (self.directory / "content" / "blobs" / "sha256").iterdir()}

    def left(self) -> list[str]:
        """What is on disk, whole or not."""
        parts = ("content/blobs/sha256", "content/blobs/sha512", "content/ingest", "overlayfs/layers", "overlayfs/stage")
        return [f"{part}/{name}" for part in parts for name in os.listdir(self.directory / part)]


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    launcher = Launcher.start(["runtime_core.images.unpack_worker"])
    yield launcher
    launcher.close()


@pytest.fixture
def store(tmp_path: Path, launcher: Launcher) -> Iterator[Store]:
    store = Store(tmp_path / "store", launcher)
    yield store
    store.close()


@pytest.fixture(scope="module")
def _server() -> Iterator[HostileRegistry]:
    registry = HostileRegistry()
    yield registry
    registry.close()


@pytest.fixture
def registry(_server: HostileRegistry) -> HostileRegistry:
    """Empty and well-behaved: it takes half a second to end, so that it outlives a test."""
    _server.clear()
    return _server


@pytest.fixture
def elsewhere() -> Iterator[HostileRegistry]:
    """Another host: another port is one."""
    registry = HostileRegistry()
    yield registry
    registry.close()
