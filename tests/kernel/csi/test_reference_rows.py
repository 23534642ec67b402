"""What the reference hostpath driver gets wrong, row by row, held against trivet-csi over images as a kubelet uses it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from csi_driver.api.v1 import csi_pb2 as csi
from runtime_core.kernel import capabilities, mounts
from runtime_core.testing.tools import require_program
from tests.support.csi_daemon import MIB, Mode, capability, create_request, from_snapshot, from_volume
from tests.support.csi_lifecycle import length, read, write
from tests.support.csi_pods import SIZE, Pods, code, pods, reboot

_CONTENT = os.urandom(MIB)
_BLOCK = capability("block")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Pods]:
    require_program("mkfs.ext4", "e2fsprogs")
    require_program("mkfs.xfs", "xfsprogs")
    with pods(tmp_path) as made:
        yield made


def _image(node: Pods, volume: str) -> Path:
    return node.daemon.root / "loop" / "volumes" / volume / "image"


def _total(path: Path) -> int:
    found = os.statvfs(path)
    return found.f_blocks * found.f_frsize


# ---- size


@pytest.mark.parametrize("kind", ["mount", "block"])
def test_a_volume_of_64_mib_takes_64_mib_and_not_more(node: Pods, kind: str) -> None:
    """Of the node's disk, when it is full to the last byte."""
    volume = node.create("v", capability(kind))
    target = node.publish(volume)
    path = target / "file" if kind == "mount" else target
    with pytest.raises(OSError, match="No space left"), path.open("r+b" if kind == "block" else "wb", buffering=0) as file:
        for _number in range(2 * SIZE // MIB):
            file.write(_CONTENT)
    os.sync()
    image = _image(node, volume).stat()
    assert image.st_size == SIZE
    assert image.st_blocks * 512 <= SIZE
    node.end(volume)


def test_statfs_and_stats_show_the_volume_and_not_the_nodes_disk(node: Pods) -> None:
    volume = node.create("v")
    target = node.publish(volume)
    assert 0.7 * SIZE < _total(target) <= SIZE
    answer = node.node.NodeGetVolumeStats(csi.NodeGetVolumeStatsRequest(volume_id=volume, volume_path=str(target)))
    (used,) = [one for one in answer.usage if one.unit == csi.VolumeUsage.BYTES]
    assert used.total == _total(target)
    node.end(volume)


def test_an_expanded_block_device_is_larger_at_once(node: Pods) -> None:
    """While it is published; its new end can be written."""
    volume = node.create("v", _BLOCK)
    target = node.publish(volume)
    if node.expand(volume, 2 * SIZE):
        node.node.NodeExpandVolume(csi.NodeExpandVolumeRequest(volume_id=volume, volume_path=str(target)))
    assert length(target) == 2 * SIZE
    with target.open("r+b", buffering=0) as device:
        assert os.pwrite(device.fileno(), b"x", 2 * SIZE - 1) == 1
    node.end(volume)


@pytest.mark.parametrize("fs_type", ["", "ext4", "xfs"])
def test_an_expanded_file_system_is_larger_at_once_or_at_the_next_stage(node: Pods, fs_type: str) -> None:
    """ext4 is grown by who has CAP_SYS_RESOURCE; where that is refused the volume says so until it is staged again.
    Who leaves the file system to the driver gets one that grows."""
    size = 320 * MIB
    volume = node.create("v", capability(fs_type=fs_type), size)
    target = node.publish(volume)
    (target / "file").write_bytes(_CONTENT)
    assert node.expand(volume, 2 * size)
    grow = csi.NodeExpandVolumeRequest(volume_id=volume, volume_path=str(target))
    if fs_type == "ext4" and "CAP_SYS_RESOURCE" not in capabilities.machine():
        assert code(lambda: node.node.NodeExpandVolume(grow)) == "FAILED_PRECONDITION"
        stats = csi.NodeGetVolumeStatsRequest(volume_id=volume, volume_path=str(target))
        assert "next" in node.node.NodeGetVolumeStats(stats).volume_condition.message
        node.unpublish(volume)
        node.unstage(volume)
        node.stage(volume)
        node.publish(volume)
    else:
        node.node.NodeExpandVolume(grow)
    assert _total(target) > 1.6 * size
    assert (target / "file").read_bytes() == _CONTENT
    node.end(volume)


# ---- kill -9


def test_killed_among_many_calls_the_driver_starts_again(node: Pods) -> None:
    """And every volume that it acknowledged is there."""
    node.daemon.stop()
    node.daemon.start(failpoints="csi.create.ready=kill:20")
    calls = [node.daemon.controller.CreateVolume.future(create_request(f"v{number}")) for number in range(40)]
    made = {call.result().volume.volume_id for call in calls if call.exception() is None}
    node.daemon.wait()
    node.daemon.start()
    listed = node.daemon.controller.ListVolumes(csi.ListVolumesRequest()).entries
    assert made and made <= {one.volume.volume_id for one in listed}
    for one in listed:
        node.delete(one.volume.volume_id)


@pytest.mark.parametrize("point", ["csi.create.recorded", "volume.create.directory", "volume.create.filled", "csi.create.made"])
def test_a_retried_restore_is_never_an_empty_volume(node: Pods, point: str) -> None:
    source = node.create("source")
    (node.publish(source) / "file").write_bytes(_CONTENT)
    snapshot = node.daemon.snapshot("s", source).snapshot_id
    node.daemon.stop()
    node.daemon.start(failpoints=f"{point}=kill")
    assert code(lambda: node.create("restored", volume_content_source=from_snapshot(snapshot))) == "UNAVAILABLE"
    node.daemon.wait()
    node.daemon.start()
    restored = node.create("restored", volume_content_source=from_snapshot(snapshot))
    assert (node.publish(restored) / "file").read_bytes() == _CONTENT
    for volume in (restored, source):
        node.unpublish(volume)
        node.unstage(volume)
        node.delete(volume)


# ---- reboot


def test_a_block_volume_is_usable_after_a_reboot(node: Pods) -> None:
    volume = node.create("v", _BLOCK)
    write(node.publish(volume), _CONTENT)
    reboot(node.daemon)
    node.stage(volume)
    assert read(node.publish(volume), MIB) == _CONTENT
    node.end(volume)


def test_a_mounted_volume_can_be_unstaged_after_a_reboot(node: Pods) -> None:
    """Without having been staged again, and used again later with its data."""
    volume = node.create("v")
    (node.publish(volume) / "file").write_bytes(_CONTENT)
    reboot(node.daemon)
    node.unpublish(volume)
    node.unstage(volume)
    node.stage(volume)
    assert (node.publish(volume) / "file").read_bytes() == _CONTENT
    node.end(volume)


# ---- paths


@pytest.mark.parametrize("volume", ["..", "../x", "../../outside", "/etc", ".", "a/../../../outside"])
def test_the_id_of_an_inline_volume_is_never_a_path(node: Pods, volume: str, tmp_path: Path) -> None:
    """A pod gets a volume of its own, and only that one is deleted."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    before = sorted(os.listdir(tmp_path))
    target = node.publish_inline(volume, "pod")
    assert set(os.listdir(target)) <= {"lost+found"}
    (target / "file").write_text("mine")
    node.unpublish(volume, "pod")
    assert sorted(os.listdir(tmp_path)) == before
    assert (outside / "precious").read_text() == "precious"
    assert os.listdir(node.daemon.root / "loop" / "volumes") == []


def test_a_symlink_as_target_is_not_followed(node: Pods, tmp_path: Path) -> None:
    volume, outside = node.create("v"), tmp_path / "outside"
    outside.mkdir()
    node.target("link").symlink_to(outside)
    assert code(lambda: node.publish(volume, "link")) == "INVALID_ARGUMENT"
    assert code(lambda: node.publish_inline("inline", "link")) == "INVALID_ARGUMENT"
    assert os.listdir(outside) == [] and node.target("link").is_symlink()
    assert str(outside) not in mounts.current_mount_points()


@pytest.mark.parametrize("name", ["a b", "a\tb", "a\nb", "a\\b"])
def test_a_target_that_the_mount_table_escapes_is_mounted_once(node: Pods, name: str) -> None:
    volume = node.create("v")
    for _time in range(3):
        target = node.publish(volume, name)
    assert mounts.current_mount_points().count(str(target)) == 1
    node.unpublish(volume, name)
    assert not os.path.lexists(target)


# ---- panics


def test_tokens_and_numbers_that_cannot_be_are_refused_and_the_driver_goes_on(node: Pods) -> None:
    controller = node.daemon.controller
    for token in ("-1", "0", "x", "9" * 40, "\u00e4"):
        assert code(lambda: controller.ListVolumes(csi.ListVolumesRequest(starting_token=token))) == "ABORTED"
        assert code(lambda: controller.ListSnapshots(csi.ListSnapshotsRequest(starting_token=token))) == "ABORTED"
    for number in (-1, -(2**31)):
        assert code(lambda: controller.ListVolumes(csi.ListVolumesRequest(max_entries=number))) == "INVALID_ARGUMENT"
        assert code(lambda: controller.ListSnapshots(csi.ListSnapshotsRequest(max_entries=number))) == "INVALID_ARGUMENT"
    assert controller.ListVolumes(csi.ListVolumesRequest(max_entries=2**31 - 1)).entries == []


def test_pages_lead_to_the_end(node: Pods) -> None:
    """Of volumes and of snapshots, each once; the filter by volume gives all of its snapshots."""
    volumes = [node.daemon.create(f"v{number}").volume_id for number in range(7)]
    snapshots = [node.daemon.snapshot(f"s{number}", volumes[number % 2]).snapshot_id for number in range(7)]

    def listed(list_: Any, request: Any) -> list[Any]:
        found = []
        while True:
            answer = list_(request)
            assert len(answer.entries) <= 2
            found += answer.entries
            if not answer.next_token:
                return found
            request.starting_token = answer.next_token

    controller = node.daemon.controller
    found = listed(controller.ListVolumes, csi.ListVolumesRequest(max_entries=2))
    assert [one.volume.volume_id for one in found] == volumes
    found = listed(controller.ListSnapshots, csi.ListSnapshotsRequest(max_entries=2))
    assert [one.snapshot.snapshot_id for one in found] == snapshots
    found = listed(controller.ListSnapshots, csi.ListSnapshotsRequest(max_entries=2, source_volume_id=volumes[0]))
    assert [one.snapshot.snapshot_id for one in found] == snapshots[::2]


# ---- snapshots


def test_a_volume_that_is_written_to_can_be_snapshotted_with_its_attributes(node: Pods) -> None:
    """Extended attributes, owners, links and holes are in what is restored."""
    volume = node.create("v")
    target = node.publish(volume)
    path = target / "file"
    path.write_bytes(_CONTENT)
    os.setxattr(path, "user.color", b"red")
    os.link(path, target / "again")
    with path.open("r+b") as file, ThreadPoolExecutor(1) as pool:
        file.truncate(32 * MIB)
        os.setxattr(path, "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
        os.fsync(file.fileno())
        writing = pool.submit(_write_often, target / "other")
        snapshot = node.daemon.snapshot("s", volume).snapshot_id
        writing.result(60)
    restored = node.create("r", volume_content_source=from_snapshot(snapshot))
    copy = node.publish(restored) / "file"
    assert os.getxattr(copy, "user.color") == b"red"
    assert os.getxattr(copy, "security.capability") == os.getxattr(path, "security.capability")
    found = copy.stat()
    assert (found.st_nlink, found.st_size) == (2, 32 * MIB) and found.st_blocks * 512 < 4 * MIB
    assert copy.read_bytes()[:MIB] == _CONTENT


def _write_often(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for _number in range(50):
            file.write(_CONTENT[:65536])
            os.fsync(file.fileno())


def test_a_group_is_one_cut(node: Pods) -> None:
    """Written one after the other, the second is never ahead of the first (test_groups.py has it under load)."""
    volumes = [node.create(name) for name in "vw"]
    for volume in volumes:
        (node.publish(volume) / "file").write_bytes(_CONTENT)
    request = csi.CreateVolumeGroupSnapshotRequest(name="g", source_volume_ids=volumes)
    group = node.daemon.groups.CreateVolumeGroupSnapshot(request).group_snapshot
    assert {one.source_volume_id for one in group.snapshots} == set(volumes)
    assert len({(one.creation_time.seconds, one.creation_time.nanos) for one in group.snapshots}) == 1
    for number, one in enumerate(group.snapshots):
        restored = node.create(f"r{number}", volume_content_source=from_snapshot(one.snapshot_id))
        assert (node.publish(restored) / "file").read_bytes() == _CONTENT


@pytest.mark.parametrize(("kind", "other"), [("mount", "block"), ("block", "mount")])
def test_a_snapshot_is_not_restored_as_what_it_is_not(node: Pods, kind: str, other: str) -> None:
    """Bytes of a file system are no device's content, nor the other way round."""
    snapshot = node.daemon.snapshot("s", node.create("v", capability(kind))).snapshot_id
    how, source = [capability(other)], from_snapshot(snapshot)
    restore = create_request("r", SIZE, volume_capabilities=how, volume_content_source=source)
    assert code(lambda: node.daemon.controller.CreateVolume(restore)) == "INVALID_ARGUMENT"


def test_the_same_clone_is_answered_after_a_restart(node: Pods) -> None:
    """As the same volume; the source may be gone by then."""
    source = node.daemon.create("v", SIZE).volume_id
    clone = node.daemon.create("c", SIZE, volume_content_source=from_volume(source))
    node.daemon.kill()
    node.daemon.start()
    assert node.daemon.create("c", SIZE, volume_content_source=from_volume(source)) == clone
    node.delete(source)
    assert node.daemon.create("c", SIZE, volume_content_source=from_volume(source)) == clone


# ---- publish


def test_a_published_volume_is_not_deleted(node: Pods) -> None:
    volume = node.create("v")
    target = node.publish(volume)
    (target / "file").write_bytes(_CONTENT)
    assert code(lambda: node.delete(volume)) == "FAILED_PRECONDITION"
    assert (target / "file").read_bytes() == _CONTENT
    node.end(volume)


def test_a_block_volume_for_reading_takes_no_writes(node: Pods) -> None:
    volume = node.create("v", capability("block", Mode.MULTI_NODE_MULTI_WRITER))
    target = node.publish(volume, readonly=True)
    with pytest.raises(OSError, match=r"not permitted|Read-only|denied"):
        write(target, b"x")
    node.unpublish(volume)
    write(node.publish(volume), b"x")  # the device is writable for its next user
    node.end(volume)


def test_mount_flags_and_file_system_are_those_that_are_asked_for(node: Pods) -> None:
    how = capability(fs_type="xfs", mount_flags=["noatime", "nosuid"])
    volume = node.create("v", how, 320 * MIB)
    target = node.publish(volume)
    (line,) = [one for one in Path("/proc/self/mountinfo").read_text().splitlines() if one.split()[4] == str(target)]
    assert line.partition(" - ")[2].split()[0] == "xfs"
    assert {"noatime", "nosuid"} <= set(line.split()[5].split(","))
    node.end(volume)
    assert code(lambda: node.create("w", capability(fs_type="ntfs"))) == "INVALID_ARGUMENT"


# ---- CSI 1.13


def test_health_and_mount_group_are_announced_and_the_condition_is_not(node: Pods) -> None:
    """VOLUME_CONDITION was 11 of the controller's capabilities and 4 of the node's."""
    found = node.daemon.controller.ControllerGetCapabilities(csi.ControllerGetCapabilitiesRequest()).capabilities
    numbers = {one.rpc.type for one in found}
    controller = csi.ControllerServiceCapability.RPC
    assert {controller.GET_VOLUME_HEALTH, controller.LIST_VOLUME_HEALTH} <= numbers and 11 not in numbers
    numbers = {one.rpc.type for one in node.node.NodeGetCapabilities(csi.NodeGetCapabilitiesRequest()).capabilities}
    of_node = csi.NodeServiceCapability.RPC
    assert {of_node.GET_VOLUME_HEALTH, of_node.GET_STORAGE_HEALTH, of_node.VOLUME_MOUNT_GROUP} <= numbers and 4 not in numbers


def test_a_mount_group_owns_the_volume(node: Pods) -> None:
    volume = node.create("v", capability(volume_mount_group="4321"))
    target = node.publish(volume)
    assert (target.stat().st_gid, target.stat().st_mode & 0o2070) == (4321, 0o2070)
    node.end(volume)


# ---- facts


def test_a_volume_frozen_by_a_driver_that_died_is_thawed(node: Pods) -> None:
    volume = node.create("v")
    target = node.publish(volume)
    node.daemon.stop()
    node.daemon.start(failpoints="volume.snapshot.frozen=kill")
    assert code(lambda: node.daemon.snapshot("s", volume)) == "UNAVAILABLE"
    node.daemon.wait()
    node.daemon.start()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit((target / "file").write_bytes, _CONTENT).result(30) == MIB
    assert node.daemon.snapshot("s", volume).ready_to_use
