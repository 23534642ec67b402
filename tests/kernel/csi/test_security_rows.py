"""What drivers of local volumes were attacked with, row by row: no id, name or parameter makes a path, and no link is
followed."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.records import ids
from runtime_core.kernel import mounts
from tests.support.csi_daemon import NODE, capability, create_request, from_snapshot, from_volume
from tests.support.csi_lifecycle import leftovers
from tests.support.csi_pods import Pods, code, pods

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_NONE = {"enforcement": "none"}
#: as ids: foreign ones of every kind, and those that only look like ours
HOSTILE_IDS = [
    "..", "../outside", "../../outside", "/etc", ".", "vol-../../outside", "vol-" + "0" * 32 + "/../../../outside", "a\0b",
    "a\nb", "\x1b[2J", "vol-" + "0" * 32, "vol-" + "A" * 32, "server/share/../../outside", "x" * 4096, "%2e%2e/outside", "\u202e",
]  # fmt: skip
HOSTILE_NAMES = [
    "../../outside/x",
    "..",
    "/etc/x",
    "a/b",
    "${.PVC.namespace}/../..",
    "{{ .PVC.name }}/../../outside",
    "%2e%2e%2fx",
]


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """Beside what is the driver's: whole at the end."""
    place = tmp_path / "outside"
    place.mkdir()
    (place / "precious").write_text("precious")
    yield place
    assert os.listdir(place) == ["precious"]
    assert (place / "precious").read_text() == "precious"


@pytest.fixture(params=["loop", "directory"])
def node(request: pytest.FixtureRequest, tmp_path: Path, outside: Path) -> Iterator[Pods]:
    with pods(tmp_path, backend=request.param) as made:
        yield made


@pytest.fixture
def directories(tmp_path: Path, outside: Path) -> Iterator[Pods]:
    """Whose volumes and snapshots are trees that pods filled."""
    with pods(tmp_path, backend="directory") as made:
        yield made


def _parameters(node: Pods) -> dict[str, str]:
    return {} if (node.daemon.root / "loop").exists() else _NONE


def _calls(node: Pods, volume: str) -> dict[str, tuple[Any, Any]]:
    """Every call that takes the id of a volume."""
    controller, kubelet, how = node.daemon.controller, node.node, capability()
    staging, target = str(node.daemon.kubelet / "staging" / "s"), str(node.target("t"))
    grown = csi.CapacityRange(required_bytes=1 << 30)
    return {
        "publish": (
            controller.ControllerPublishVolume,
            csi.ControllerPublishVolumeRequest(volume_id=volume, node_id=NODE, volume_capability=how),
        ),
        "validate": (
            controller.ValidateVolumeCapabilities,
            csi.ValidateVolumeCapabilitiesRequest(volume_id=volume, volume_capabilities=[how]),
        ),
        "expand": (
            controller.ControllerExpandVolume,
            csi.ControllerExpandVolumeRequest(volume_id=volume, capacity_range=grown),
        ),
        "get": (controller.ControllerGetVolume, csi.ControllerGetVolumeRequest(volume_id=volume)),
        "health": (controller.ControllerGetVolumeHealth, csi.ControllerGetVolumeHealthRequest(volume_id=volume)),
        "snapshot": (controller.CreateSnapshot, csi.CreateSnapshotRequest(name="s", source_volume_id=volume)),
        "clone": (
            controller.CreateVolume,
            create_request("c", parameters=_parameters(node), volume_content_source=from_volume(volume)),
        ),
        "restore": (
            controller.CreateVolume,
            create_request("r", parameters=_parameters(node), volume_content_source=from_snapshot(volume)),
        ),
        "group": (
            node.daemon.groups.CreateVolumeGroupSnapshot,
            csi.CreateVolumeGroupSnapshotRequest(name="g", source_volume_ids=[volume]),
        ),
        "stage": (
            kubelet.NodeStageVolume,
            csi.NodeStageVolumeRequest(volume_id=volume, staging_target_path=staging, volume_capability=how),
        ),
        "node publish": (
            kubelet.NodePublishVolume,
            csi.NodePublishVolumeRequest(
                volume_id=volume, staging_target_path=staging, target_path=target, volume_capability=how
            ),
        ),
        "unpublish": (kubelet.NodeUnpublishVolume, csi.NodeUnpublishVolumeRequest(volume_id=volume, target_path=target)),
        "unstage": (kubelet.NodeUnstageVolume, csi.NodeUnstageVolumeRequest(volume_id=volume, staging_target_path=staging)),
        "stats": (kubelet.NodeGetVolumeStats, csi.NodeGetVolumeStatsRequest(volume_id=volume, volume_path=target)),
        "node expand": (kubelet.NodeExpandVolume, csi.NodeExpandVolumeRequest(volume_id=volume, volume_path=target)),
        "node health": (kubelet.NodeGetVolumeHealth, csi.NodeGetVolumeHealthRequest(volume_id=volume)),
    }


def test_an_id_that_is_not_ours_is_not_found_and_touches_nothing(node: Pods) -> None:
    """CVE-2026-3864, CVE-2026-3865 and the reference driver, whose ids are parts of paths: by every call that takes one."""
    kept = node.daemon.create("kept", parameters=_parameters(node)).volume_id
    (node.daemon.kubelet / "staging" / "s").mkdir()
    for one in HOSTILE_IDS:
        for what, (call, request) in _calls(node, one).items():
            assert code(lambda: call(request)) == "NOT_FOUND", (one, what)
        node.delete(one)  # is gone already
        node.daemon.controller.DeleteSnapshot(csi.DeleteSnapshotRequest(snapshot_id=one))
        node.daemon.groups.DeleteVolumeGroupSnapshot(csi.DeleteVolumeGroupSnapshotRequest(group_snapshot_id=one))
        node.daemon.controller.ControllerUnpublishVolume(csi.ControllerUnpublishVolumeRequest(volume_id=one, node_id=NODE))
    (entry,) = node.daemon.controller.ListVolumes(csi.ListVolumesRequest()).entries
    assert entry.volume.volume_id == kept
    assert '"unforeseen"' not in node.daemon.log() and "INTERNAL" not in node.daemon.log()


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_name_is_no_path(node: Pods, name: str) -> None:
    """CVE-2025-62878: what a claim is called, in which namespace, is data. On disk a volume has our id."""
    sidecar = {
        "csi.storage.k8s.io/pvc/name": name,
        "csi.storage.k8s.io/pvc/namespace": "../..",
        "csi.storage.k8s.io/pv/name": name,
    }
    volume = node.daemon.create(name, parameters={**_parameters(node), **sidecar}).volume_id
    snapshot = node.daemon.snapshot(name, volume).snapshot_id
    (home,) = [path.parent for path in node.daemon.root.glob("*/volumes")]
    assert (os.listdir(home / "volumes"), os.listdir(home / "snapshots")) == ([volume], [snapshot])
    assert ids.is_volume_id(volume) and ids.is_snapshot_id(snapshot)
    node.daemon.controller.DeleteSnapshot(csi.DeleteSnapshotRequest(snapshot_id=snapshot))
    node.delete(volume)
    assert (os.listdir(home / "volumes"), os.listdir(home / "snapshots")) == ([], [])


@pytest.mark.parametrize("key", ["pathPattern", "subDir", "subdir", "path", "basePath", "mountOptions", "share", "nodePath"])
def test_a_parameter_that_would_be_a_path_is_refused(node: Pods, key: str) -> None:
    """CVE-2025-62878, CVE-2026-3864: in a StorageClass, in a VolumeAttributesClass and in a pod's inline volume."""
    hostile, controller = {**_parameters(node), key: "../../outside"}, node.daemon.controller
    for request in (create_request("v", parameters=hostile), create_request("v", mutable_parameters={key: "../../outside"})):
        assert code(lambda: controller.CreateVolume(request)) == "INVALID_ARGUMENT"
    context = {"csi.storage.k8s.io/ephemeral": "true", key: "../../outside"}
    request = csi.NodePublishVolumeRequest(
        volume_id="csi-" + "1" * 64, target_path=str(node.target("t")), volume_capability=capability(), volume_context=context
    )
    assert code(lambda: node.node.NodePublishVolume(request)) == "INVALID_ARGUMENT"
    assert (
        leftovers(node.daemon) == [] if "loop" in os.listdir(node.daemon.root) else os.listdir(node.daemon.kubelet / "pods") == []
    )


def test_links_that_a_pod_left_in_its_volume_lead_nowhere(directories: Pods, outside: Path) -> None:
    """CVE-2017-1002101: a snapshot, a clone, a group's ownership and a deletion see links, and not what they name."""
    node = directories
    how = capability(volume_mount_group="4321")
    volume = node.create("v", how, parameters=_NONE)
    target = node.publish(volume)
    (target / "link").symlink_to(outside)
    (target / "file").symlink_to(outside / "precious")
    (target / "up").symlink_to("../" * 20 + str(outside)[1:])
    (target / "deep").mkdir()
    (target / "deep" / "link").symlink_to(outside)
    before = outside.stat()
    snapshot = node.daemon.snapshot("s", volume).snapshot_id
    restored = node.create("r", how, parameters=_NONE, volume_content_source=from_snapshot(snapshot))
    assert os.readlink(node.publish(restored) / "link") == str(outside)
    for one in (restored, volume):
        node.unpublish(one)
        node.unstage(one)
        node.delete(one)
    node.daemon.controller.DeleteSnapshot(csi.DeleteSnapshotRequest(snapshot_id=snapshot))
    after = outside.stat()
    assert (before.st_gid, before.st_mode, before.st_ctime_ns) == (after.st_gid, after.st_mode, after.st_ctime_ns)


@contextmanager
def _swapping(path: Path, link_to: Path) -> Iterator[None]:
    """`path` is a directory and a link, in turns, as fast as it can be; in the end it is a directory."""
    ended = threading.Event()
    libc, link = ctypes.CDLL(None, use_errno=True), path.with_name("link")
    link.symlink_to(link_to)

    def swap() -> None:
        while not ended.is_set() or path.is_symlink():
            assert libc.renameat2(_AT_FDCWD, os.fsencode(path), _AT_FDCWD, os.fsencode(link), _RENAME_EXCHANGE) == 0

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_a_directory_swapped_for_a_link_while_it_is_used(node: Pods, outside: Path) -> None:
    """CVE-2021-25741: whoever wins the race, nothing is mounted, made or removed where the link leads."""
    volume = node.create("v", parameters=_parameters(node))
    pod = node.target("pod")
    pod.mkdir()
    codes = {"OK"}
    with _swapping(pod, outside):
        for _time in range(60):
            for call in (node.publish, node.unpublish):
                try:
                    call(volume, "pod/mount")
                except grpc.RpcError as error:
                    codes.add(error.code().name)
    assert codes <= {"OK", "INVALID_ARGUMENT", "FAILED_PRECONDITION", "UNAVAILABLE"}
    assert "INVALID_ARGUMENT" in codes, "nobody met the link"
    assert [point for point in mounts.current_mount_points() if point.startswith(str(outside))] == []
    node.publish(volume, "pod/mount")
    node.unpublish(volume, "pod/mount")
    node.unstage(volume)
    node.delete(volume)
    assert os.listdir(pod) == []


def test_a_volumes_place_that_somebody_made_a_link_is_not_followed_by_delete(node: Pods, outside: Path) -> None:
    """Deletion is by name within the driver's own directory."""
    volume = node.daemon.create("v", parameters=_parameters(node)).volume_id
    (home,) = list(node.daemon.root.glob("*/volumes"))
    (home / volume).rename(home.parent / "moved")
    (home / volume).symlink_to(outside)
    node.delete(volume)
    assert os.listdir(home) == []
