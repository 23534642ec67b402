"""The table of docs/image-layers.md: what containerd and umoci come to is what its columns say."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from e2e.images.unpackers import Containerd, umoci_unpacked
from runtime_core.testing.tools import require_program
from tests.support.layer_cases import REFUSED, Case, cases, tree
from trivet.demo.registry import Registry

pytestmark = pytest.mark.timeout(3000)
_LAYER = "application/vnd.oci.image.layer.v1.tar"


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    registry = Registry()
    yield registry
    registry.close()


@pytest.fixture(scope="module")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    containerd = Containerd(tmp_path_factory.mktemp("containerd"))
    yield containerd
    containerd.close()


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_containerd(case: Case, containerd: Containerd, registry: Registry) -> None:
    """Its overlayfs snapshotter, as a kubelet's node has it."""
    layers = [(archive, archive, _LAYER) for archive in case.archives()]
    name = hashlib.sha256(case.name.encode()).hexdigest()[:12]
    reference = registry.put_image(name, "1", layers, {})
    try:
        with containerd.unpacked(reference) as root:
            found = tree(root)
    except grpc.RpcError:
        found = (REFUSED,)
    assert found == case.containerd


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_umoci(case: Case, tmp_path: Path) -> None:
    """Its unpacking into one directory."""
    require_program("umoci", "umoci")
    try:
        with umoci_unpacked(case.archives(), tmp_path) as root:
            found = tree(root)
    except subprocess.CalledProcessError:
        found = (REFUSED,)
    assert found == case.umoci
