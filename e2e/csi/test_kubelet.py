"""An unmodified kubelet with an API server gives pods volumes of trivet-csi."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from csi_driver.api.v1 import csi_pb2 as csi
from e2e.csi import objects
from e2e.csi.cluster import Cluster, network
from e2e.peers.build import build
from e2e.registry import ForeignRegistry
from e2e.wait import wait_for

pytestmark = pytest.mark.timeout(3000)

_MIB = 1 << 20
_PODS, _VOLUMES = "/api/v1/namespaces/default/pods", "/api/v1/persistentvolumes"
_CLAIMS = "/api/v1/namespaces/default/persistentvolumeclaims"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    directory = Path(tempfile.mkdtemp(prefix="trivet-e2e-"))
    with network():
        cluster = Cluster(directory)
        try:
            cluster.start_control_plane()
            cluster.start_daemon()
            cluster.start_driver()
            cluster.start_kubelet()
            wait_for("registration of the driver", cluster.is_registered, 60)
            cluster.api.create("/apis/storage.k8s.io/v1/csidrivers", objects.csi_driver())
            cluster.api.create("/apis/storage.k8s.io/v1/storageclasses", objects.storage_class())
            yield cluster
            images = cluster.images()
        finally:
            left = cluster.close()
    shutil.rmtree(directory)
    assert left == images == []


@pytest.fixture(scope="module")
def image(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A small image in a registry that is not ours."""
    registry = ForeignRegistry(build("registry"), tmp_path_factory.mktemp("registry"))
    yield registry.push_tools()
    registry.close()


class Claim:
    """A volume of the driver with its PersistentVolume and a claim that is bound to it."""

    def __init__(self, cluster: Cluster, name: str, size: int, *, block: bool = False, fs_type: str = "") -> None:
        self.cluster, self.name = cluster, name
        mode = csi.VolumeCapability.AccessMode(mode=csi.VolumeCapability.AccessMode.SINGLE_NODE_MULTI_WRITER)
        how = csi.VolumeCapability(access_mode=mode)
        if block:
            how.block.SetInParent()
        else:
            how.mount.fs_type = fs_type
        self.handle = cluster.controller().CreateVolume(
            csi.CreateVolumeRequest(name=name, capacity_range=csi.CapacityRange(required_bytes=size), volume_capabilities=[how])
        ).volume.volume_id  # fmt: skip
        kind = "Block" if block else "Filesystem"
        cluster.api.create(_VOLUMES, objects.volume(name, self.handle, size, kind, fs_type))
        cluster.api.create(_CLAIMS, objects.claim(name, size, kind))
        wait_for(f"claim {name} bound", lambda: cluster.api.get(f"{_CLAIMS}/{name}")["status"].get("phase") == "Bound", 60)

    def delete(self) -> None:
        """Also of the volume: refused for as long as it is staged, which ends after the last pod."""
        self.cluster.api.delete(f"{_CLAIMS}/{self.name}")
        self.cluster.api.delete(f"{_VOLUMES}/{self.name}")
        wait_for(f"volume {self.name} deleted", self._is_deleted, 60)

    def _is_deleted(self) -> bool:
        try:
            self.cluster.controller().DeleteVolume(csi.DeleteVolumeRequest(volume_id=self.handle))
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.FAILED_PRECONDITION:
                raise
            return False
        return True


def _run(cluster: Cluster, pod: dict[str, Any]) -> str:
    """The pod's log once it is ready."""
    name = pod["metadata"]["name"]
    cluster.api.create(_PODS, pod)
    try:
        wait_for(f"pod {name} ready", lambda: _is_ready(cluster, name), 90)
    except AssertionError as error:
        events = cluster.api.get("/api/v1/namespaces/default/events")["items"]
        said = [event["message"] for event in events if event["involvedObject"]["name"] == name]
        raise AssertionError(f"{error}: {said}") from error
    return cluster.get(f"/containerLogs/default/{name}/c")


def _is_ready(cluster: Cluster, name: str) -> bool:
    conditions = cluster.api.get(f"{_PODS}/{name}")["status"].get("conditions") or []
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def _end(cluster: Cluster, name: str) -> None:
    cluster.api.delete(f"{_PODS}/{name}")
    wait_for(f"pod {name} gone", lambda: not cluster.api.exists(f"{_PODS}/{name}"), 90)


def test_a_claim_keeps_its_data_from_pod_to_pod(cluster: Cluster, image: str) -> None:
    """And the driver may be killed and started while a pod uses it, which notices nothing."""
    claim = Claim(cluster, "data", 64 * _MIB)
    volumes = [objects.claimed("data", "data")]
    _run(cluster, objects.pod("first", image, "echo written > /data/file && touch /tmp/done", volumes))
    cluster.kill_driver()
    cluster.start_driver()
    log = cluster.get("/containerLogs/default/first/c")
    assert log == ""
    _end(cluster, "first")
    log = _run(cluster, objects.pod("second", image, "cat /data/file && touch /data/more /tmp/done", volumes))
    assert log == "written\n"
    _end(cluster, "second")
    claim.delete()


def test_two_pods_share_a_claim(cluster: Cluster, image: str) -> None:
    """On one node ReadWriteOnce is for all its pods."""
    claim = Claim(cluster, "shared", 64 * _MIB)
    volumes = [objects.claimed("data", "shared")]
    _run(cluster, objects.pod("one", image, "echo shared > /data/file && touch /tmp/done", volumes))
    assert _run(cluster, objects.pod("two", image, "cat /data/file && touch /tmp/done", volumes)) == "shared\n"
    for name in ("one", "two"):
        _end(cluster, name)
    claim.delete()


def test_a_block_volume_is_a_device_in_the_pod(cluster: Cluster, image: str) -> None:
    """Of its size, and what is written is there for the next pod."""
    claim = Claim(cluster, "raw", 32 * _MIB, block=True)
    volumes = [objects.claimed("block", "raw")]
    _run(cluster, objects.pod("writer", image, "test -b /dev/block && echo raw-content > /dev/block && touch /tmp/done", volumes))
    _end(cluster, "writer")
    log = _run(cluster, objects.pod("reader", image, "head -c 12 /dev/block && touch /tmp/done", volumes))
    assert log == "raw-content\n"
    _end(cluster, "reader")
    claim.delete()


def test_an_inline_volume_lives_with_its_pod(cluster: Cluster, image: str) -> None:
    before = cluster.images()
    _run(cluster, objects.pod("inline", image, "echo x > /scratch/file && touch /tmp/done", [objects.inline("scratch", "32Mi")]))
    assert len(cluster.images()) == len(before) + 1
    _end(cluster, "inline")
    wait_for("the volume's end", lambda: cluster.images() == before, 60)


def test_a_pods_group_owns_its_volume(cluster: Cluster, image: str) -> None:
    """fsGroup, which the kubelet leaves to the driver; claim and inline volume."""
    claim = Claim(cluster, "grouped", 64 * _MIB)
    script = "stat -c '%g %a' /data /scratch && echo x > /data/f && echo x > /scratch/f && stat -c %g /data/f && touch /tmp/done"
    security = {"fsGroup": 4321, "runAsUser": 1234, "runAsGroup": 1234}
    volumes = [objects.claimed("data", "grouped"), objects.inline("scratch", "32Mi")]
    log = _run(cluster, objects.pod("grouped", image, script, volumes, securityContext=security))
    assert log.splitlines() == ["4321 2775", "4321 2775", "4321"]
    _end(cluster, "grouped")
    claim.delete()


def test_a_claim_grows_under_a_running_pod(cluster: Cluster, image: str) -> None:
    """xfs: the controller service by hand, as external-resizer would; the node service is the kubelet's."""
    claim = Claim(cluster, "growing", 320 * _MIB, fs_type="xfs")
    _run(
        cluster, objects.pod("growing", image, "echo kept > /data/file && touch /tmp/done", [objects.claimed("data", "growing")])
    )
    larger = 512 * _MIB
    cluster.api.merge(f"{_CLAIMS}/growing", {"spec": {"resources": {"requests": {"storage": str(larger)}}}})
    cluster.controller().ControllerExpandVolume(
        csi.ControllerExpandVolumeRequest(volume_id=claim.handle, capacity_range=csi.CapacityRange(required_bytes=larger))
    )
    cluster.api.merge(f"{_VOLUMES}/growing", {"spec": {"capacity": {"storage": str(larger)}}})
    wait_for("capacity of the claim", lambda: _capacity(cluster, "growing") == larger, 120)
    path = next((cluster.directory / "kubelet" / "pods").glob("*/volumes/kubernetes.io~csi/growing/mount"))
    assert (path / "file").read_text() == "kept\n"
    assert _size(path) > 0.8 * larger  # the rest is xfs's log
    _end(cluster, "growing")
    claim.delete()


def _capacity(cluster: Cluster, name: str) -> int:
    text = cluster.api.get(f"{_CLAIMS}/{name}")["status"]["capacity"]["storage"]
    return int(text.removesuffix("Mi")) * _MIB if text.endswith("Mi") else int(text)


def _size(path: Path) -> int:
    found = os.statvfs(path)
    return found.f_blocks * found.f_frsize


def test_the_kubelet_tells_how_full_a_claim_is(cluster: Cluster, image: str) -> None:
    """/stats/summary, which asks the driver: the volume's own numbers."""
    claim = Claim(cluster, "measured", 64 * _MIB)
    _run(cluster, objects.pod("measured", image, "touch /tmp/done", [objects.claimed("data", "measured")]))

    def measured() -> dict[str, Any]:
        for pod in json.loads(cluster.get("/stats/summary"))["pods"]:
            for volume in pod.get("volume", []):
                if volume.get("pvcRef", {}).get("name") == "measured":
                    found: dict[str, Any] = volume
                    return found
        return {}

    volume = wait_for("statistics", measured, 150)
    assert 40 * _MIB < volume["capacityBytes"] <= 64 * _MIB
    assert volume["inodes"] > 0
    _end(cluster, "measured")
    claim.delete()
