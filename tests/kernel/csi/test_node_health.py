"""Use and health of volumes on the node: asked for, seen without being asked, and never held up by a volume that hangs."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.node.watch import start_watch
from e2e.wait import wait_for
from runtime_core.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, NotFound, OutOfRange, TrivetError
from runtime_core.interfaces.volume import Problem, Usage, Volume
from runtime_core.kernel import loop_device, mounts, syscalls
from runtime_core.testing.tools import require_program
from tests.support.csi_node import SIZE, NodeService, capability, own_mounts
from tests.support.tmpfs_backend import TmpfsBackend


def _stats(node: NodeService, volume: str, path: str) -> Any:
    return node.call("NodeGetVolumeStats", volume_id=volume, volume_path=path)


def test_stats_are_of_the_volume_and_not_of_the_nodes_disk(node: NodeService) -> None:
    """Bytes and inodes, by staging and by target path."""
    volume = node.volume()
    node.stage(volume)
    target = node.publish(volume)
    Path(target, "file").write_bytes(b"x" * (1 << 20))
    for path in (target, node.staging(volume)):
        size, inodes = _stats(node, volume, path).usage
        assert (size.unit, size.total, size.used, size.available) == (csi.VolumeUsage.BYTES, SIZE, 1 << 20, SIZE - (1 << 20))
        assert inodes.unit == csi.VolumeUsage.INODES
        assert inodes.used >= 1
        assert inodes.total == inodes.used + inodes.available


def test_stats_of_a_block_volume_are_its_size(node: NodeService) -> None:
    """Nobody knows what of a device is in use."""
    volume, block = node.volume(block=True), capability(block=True)
    node.stage(volume, volume_capability=block)
    target = node.publish(volume, volume_capability=block)
    (usage,) = _stats(node, volume, target).usage
    assert (usage.unit, usage.total, usage.available, usage.used) == (csi.VolumeUsage.BYTES, SIZE, 0, 0)


@pytest.mark.parametrize("path", ["some/path", "/etc", "/"])
def test_a_path_where_the_volume_is_not_is_not_found(node: NodeService, path: str) -> None:
    volume = node.volume()
    node.stage(volume)
    with pytest.raises(NotFound, match="volume_path"):
        _stats(node, volume, path)
    with pytest.raises(NotFound, match="volume_path"):
        node.call("NodeExpandVolume", volume_id=volume, volume_path=path)


def test_problems_are_told_in_the_old_way_and_in_the_new(node: NodeService) -> None:
    """CSI 1.12's condition in stats, 1.13's health; one entry per reason."""
    volume = node.volume()
    node.stage(volume)
    assert _stats(node, volume, node.staging(volume)).volume_condition.abnormal is False
    assert list(node.call("NodeGetVolumeHealth", volume_id=volume).volume_health.health_statuses) == []
    node.backend.wrong[volume] = [Problem("FilesystemError", "two errors"), Problem("ReadOnlyRemount", "it is read-only")]
    answer = _stats(node, volume, node.staging(volume))
    assert answer.volume_condition.abnormal
    assert answer.volume_condition.message == "two errors; it is read-only"
    assert len(answer.usage) == 2
    health = node.call("NodeGetVolumeHealth", volume_id=volume).volume_health
    assert health.volume_id == volume
    assert [entry.reason for entry in health.health_statuses] == ["FilesystemError", "ReadOnlyRemount"]


def test_a_target_that_is_mounted_no_more_is_a_problem(node: NodeService) -> None:
    """Told instead of the numbers of the node's disk."""
    volume = node.volume()
    node.stage(volume)
    target = node.publish(volume)
    syscalls.umount2(target)
    answer = _stats(node, volume, target)
    assert answer.volume_condition.abnormal
    assert list(answer.usage) == []
    (entry,) = node.call("NodeGetVolumeHealth", volume_id=volume).volume_health.health_statuses
    assert (entry.reason, entry.status) == ("NotMounted", csi.INACCESSIBLE)


def test_health_is_told_of_a_volume_that_is_not_staged(node: NodeService) -> None:
    volume = node.volume()
    node.backend.wrong[volume] = [Problem("ImageMissing", "no image")]
    (entry,) = node.call("NodeGetVolumeHealth", volume_id=volume).volume_health.health_statuses
    assert (entry.reason, entry.status) == ("ImageMissing", csi.DATA_LOSS)


class Hanging(TmpfsBackend):
    """A file system that answers when `released` is set, and says in `asked` that it was asked."""

    def __init__(self, directory: str, settings: Any) -> None:
        super().__init__(directory, settings)
        self.hangs: set[str] = set()
        self.asked, self.released = threading.Semaphore(0), threading.Event()

    def usage(self, volume: Volume, mounted: str) -> Usage:
        if volume.id in self.hangs:
            self.asked.release()
            self.released.wait()
        return super().usage(volume, mounted)


def test_a_volume_that_hangs_holds_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its stats fail in time, and take one thread however often they are asked for; other volumes answer; it can be
    unpublished."""
    monkeypatch.setattr("csi_driver.records.node_state._SECONDS", 0.2)
    with own_mounts():
        node = NodeService(tmp_path, Hanging)
        bad, good = node.volume(), node.volume()
        for volume in (bad, good):
            node.stage(volume)
            node.publish(volume, volume)
        node.backend.hangs.add(bad)
        for _call in range(3):
            with pytest.raises(DeadlineExceeded, match="has not answered"):
                _stats(node, bad, node.target(bad))
        assert node.backend.asked.acquire(timeout=0)
        assert not node.backend.asked.acquire(timeout=0)
        assert len(_stats(node, good, node.target(good)).usage) == 2
        node.unpublish(bad, bad)
        node.unpublish(good, good)
        node.backend.released.set()
        wait_for("the thread's end", lambda: node.service.node.bounded.hanging() == [], 10)
        node.close()


def _seen(node: NodeService, volume: str) -> list[str]:
    return [problem.reason for problem in node.service.node.problems(volume)]


@pytest.fixture
def watching(node: NodeService) -> Iterator[NodeService]:
    watch = start_watch(node.service)
    yield node
    watch.close()


def test_a_mount_that_vanishes_is_seen_without_being_asked(watching: NodeService) -> None:
    """And that it is back."""
    node, volume = watching, watching.volume()
    node.stage(volume)
    target = node.publish(volume)
    syscalls.umount2(target)
    wait_for("the problem", lambda: _seen(node, volume) == ["NotMounted"], 10)
    assert list(node.service.node.all_problems()) == [volume]
    node.publish(volume)
    wait_for("its end", lambda: _seen(node, volume) == [], 10)


def test_a_change_that_hangs_does_not_blind_the_watch(watching: NodeService, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unmount that never ends, of one volume; a mount that vanishes, of another."""
    monkeypatch.setattr("csi_driver.records.node_state.LONGEST_CHANGE", 0.2)
    monkeypatch.setattr("csi_driver.node.watch.LONGEST_CHANGE", 0.2)
    node, volume = watching, watching.volume()
    node.stage(volume)
    with node.service.node.changing("another"):
        syscalls.umount2(node.staging(volume))
        wait_for("the problem", lambda: _seen(node, volume) == ["NotMounted"], 10)


def test_what_calls_do_is_no_problem(watching: NodeService) -> None:
    """Staging and unstaging volumes is never seen as something that vanished."""
    node, volumes = watching, [watching.volume() for _number in range(20)]
    for volume in volumes:
        node.stage(volume)
        node.publish(volume, volume)
    for volume in volumes:
        node.unpublish(volume, volume)
        node.unstage(volume)
    marker = node.volume()
    node.stage(marker)
    syscalls.umount2(node.staging(marker))
    wait_for("the watch to have come so far", lambda: _seen(node, marker) == ["NotMounted"], 10)
    assert node.log.getvalue().count('"event": "problem"') == 1


def test_a_device_that_changes_is_seen_without_being_asked(watching: NodeService) -> None:
    """By the kernel's event for the loop device (a resize, here)."""
    node, volume, block = watching, watching.volume(block=True), capability(block=True)
    node.stage(volume, volume_capability=block)
    node.publish(volume, volume_capability=block)
    node.backend.wrong[volume] = [Problem("DeviceGone", "gone")]
    image = node.root / "backend" / volume
    os.truncate(image, 2 * SIZE)

    def resized() -> bool:  # the watch may not have read the mount table yet when the first event comes
        os.truncate(image, image.stat().st_size + (1 << 20))
        loop_device.resize(loop_device.find(str(image))[0])
        return _seen(node, volume) == ["DeviceGone"]

    wait_for("the problem", resized, 10)


def test_an_error_of_ext4_is_seen_without_being_asked(watching: NodeService) -> None:
    """ext4 counts it, and the kernel wakes who polls the count (trigger_fs_error makes one)."""
    volume = _ext4_volume(watching)
    wait_for("the problem", lambda: _erred(watching, volume), 10)


def test_a_file_system_that_goes_takes_only_its_own_count_with_it(watching: NodeService) -> None:
    """Unstaged while another volume is being changed, when the mount table is not read: the watch goes on, and sees the
    next one."""
    volume = _ext4_volume(watching)
    for _round in range(10):
        with watching.service.node.changing("another"):
            watching.unstage(volume)
        watching.stage(volume)
    wait_for("the problem", lambda: _erred(watching, volume), 10)
    assert "unforeseen" not in watching.log.getvalue()


def _ext4_volume(node: NodeService) -> str:
    """A staged volume in whose file system an error can be made."""
    volume = node.volume(size=16 << 20)
    subprocess.run([require_program("mkfs.ext4", "e2fsprogs"), "-q", str(node.root / "backend" / volume)], check=True)
    node.backend.mount = lambda *_a, **_k: mounts.filesystem("ext4", source=loop_device.device_node(_device(node, volume)))
    node.stage(volume)
    if not _trigger(node, volume).exists():
        pytest.skip("this kernel's ext4 has no trigger_fs_error")
    node.backend.wrong[volume] = [Problem("FilesystemError", "an error")]
    return volume


def _device(node: NodeService, volume: str) -> int:
    image = str(node.root / "backend" / volume)
    found = loop_device.find(image)
    return found[0] if found else loop_device.attach(image, read_only=False)


def _trigger(node: NodeService, volume: str) -> Path:
    return Path(f"/sys/fs/ext4/loop{_device(node, volume)}/trigger_fs_error")


def _erred(node: NodeService, volume: str) -> bool:
    """The watch may not have found the count yet when the first error comes."""
    _trigger(node, volume).write_text("a test")
    return _seen(node, volume) == ["FilesystemError"]


@pytest.mark.parametrize(
    ("fields", "error", "said"),
    [
        ({"capacity_range": csi.CapacityRange(required_bytes=SIZE + 1)}, OutOfRange, "required_bytes"),
        ({"capacity_range": csi.CapacityRange(required_bytes=-1)}, InvalidArgument, "negative"),
        ({"capacity_range": csi.CapacityRange(required_bytes=2, limit_bytes=1)}, OutOfRange, "limit_bytes"),
        ({"volume_capability": capability(block=True)}, InvalidArgument, "mount volume"),
    ],
)
def test_an_expansion_that_cannot_be_is_refused(
    node: NodeService, fields: dict[str, Any], error: type[TrivetError], said: str
) -> None:
    volume = node.volume()
    node.stage(volume)
    with pytest.raises(error, match=said):
        node.call("NodeExpandVolume", volume_id=volume, volume_path=node.staging(volume), **fields)
    assert node.backend.grown == []


def test_an_expansion_lets_the_file_system_fill_the_volume(node: NodeService) -> None:
    """Where it is mounted, or as a device; again is OK."""
    volume, device = node.volume(), node.volume(block=True)
    node.stage(volume)
    node.stage(device, volume_capability=capability(block=True))
    target = node.publish(volume)
    node.publish(device, "device", volume_capability=capability(block=True))
    for _repeat in range(2):
        answer = node.call(
            "NodeExpandVolume", volume_id=volume, volume_path=target, capacity_range=csi.CapacityRange(required_bytes=SIZE)
        )
        assert answer.capacity_bytes == SIZE
    node.call("NodeExpandVolume", volume_id=device, volume_path=node.target("device"))
    assert node.backend.grown == [(volume, SIZE, target)] * 2 + [(device, SIZE, "")]


class Storage(TmpfsBackend):
    failing: Callable[[], Any] | None = None

    def capacity(self) -> Any:
        return self.failing() if self.failing else super().capacity()


def test_the_storage_below_is_told_of(tmp_path: Path) -> None:
    """Nothing when all is well; full; gone."""
    node = NodeService(tmp_path, Storage)
    assert list(node.call("NodeGetStorageHealth").backend_health) == []
    full = type(node.backend.capacity())(available=0, total=1, smallest_volume=1, largest_volume=0)
    node.backend.failing = lambda: full
    (entry,) = node.call("NodeGetStorageHealth").backend_health
    assert (entry.reason, entry.status) == ("Full", csi.STORAGE_DEGRADED)

    def gone() -> Any:
        raise FailedPrecondition("the disk is gone")

    node.backend.failing = gone
    (entry,) = node.call("NodeGetStorageHealth").backend_health
    assert (entry.status, entry.message) == (csi.STORAGE_UNREACHABLE, "the disk is gone")
    node.close()


def test_what_the_node_announces(tmp_path: Path) -> None:
    node = NodeService(tmp_path, max_volumes=7)
    announced = {capability.rpc.type for capability in node.call("NodeGetCapabilities").capabilities}
    names = {csi.NodeServiceCapability.RPC.Type.Name(number) for number in announced}
    assert names == {
        "STAGE_UNSTAGE_VOLUME", "GET_VOLUME_STATS", "EXPAND_VOLUME", "SINGLE_NODE_MULTI_WRITER",
        "VOLUME_MOUNT_GROUP", "GET_VOLUME_HEALTH", "GET_STORAGE_HEALTH",
    }  # fmt: skip
    info = node.call("NodeGetInfo")
    assert (info.node_id, info.max_volumes_per_node) == ("n1", 7)
    assert info.accessible_topology.segments == {"topology.hostpath.csi.trivet.dev/node": "n1"}
    node.close()
