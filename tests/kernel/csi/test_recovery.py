"""trivet-csi killed at every step: what was acknowledged is there, what was not is made by the retry, nothing is left over."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.records import ids
from tests.support.csi_daemon import MIB, NODE, CsiDaemon, capability, create_request, from_snapshot, from_volume
from tests.support.csi_lifecycle import Steps
from tests.support.csi_node import own_mounts

_ROOT = Path(__file__).parents[3]
_POINT = re.compile(r'failpoint\.hit\("([a-z.-]+)"\)')
_FOLDERS = ("csi_driver/records", "csi_driver/controller", "csi_driver/group_controller", "tests/support")
#: those of the controller service, found in the sources so that a new one is tested at once
POINTS = sorted(
    point
    for folder in _FOLDERS
    for path in (_ROOT / folder).glob("*.py")
    for point in _POINT.findall(path.read_text())
    if point.startswith(("csi.", "memory."))
)
_CONTENT = os.urandom(MIB)


class Life(Steps):
    """Every changing call of the controller service, once, in an order in which each needs those before."""

    def __init__(self, daemon: CsiDaemon) -> None:
        self.daemon = daemon
        self.volume = self.snapshot = self.restored = self.clone = ""
        self.group = csi.VolumeGroupSnapshot()
        self.steps = [
            self._create, self._attach, self._write, self._modify, self._expand, self._cut, self._restore, self._copy,
            self._cut_group, self._delete_group, self._delete_snapshot, self._detach, self._delete_all,
        ]  # fmt: skip

    def path(self, volume_id: str) -> Path:
        return self.daemon.root / "memory/volumes" / volume_id

    def _create(self) -> None:
        self.volume = self.daemon.create("v", MIB).volume_id

    def _attach(self) -> None:
        self.daemon.controller.ControllerPublishVolume(
            csi.ControllerPublishVolumeRequest(volume_id=self.volume, node_id=NODE, volume_capability=capability())
        )

    def _write(self) -> None:
        self.path(self.volume).write_bytes(_CONTENT)

    def _modify(self) -> None:
        self.daemon.controller.ControllerModifyVolume(
            csi.ControllerModifyVolumeRequest(volume_id=self.volume, mutable_parameters={"iops": "9"})
        )

    def _expand(self) -> None:
        self.daemon.controller.ControllerExpandVolume(
            csi.ControllerExpandVolumeRequest(volume_id=self.volume, capacity_range=csi.CapacityRange(required_bytes=3 * MIB))
        )
        assert self._listed()[self.volume] == self.path(self.volume).stat().st_size == 3 * MIB

    def _cut(self) -> None:
        self.snapshot = self.daemon.snapshot("s", self.volume).snapshot_id

    def _restore(self) -> None:
        self.restored = self.daemon.create("r", 4 * MIB, volume_content_source=from_snapshot(self.snapshot)).volume_id
        assert self.path(self.restored).read_bytes() == _CONTENT + bytes(3 * MIB)

    def _copy(self) -> None:
        self.clone = self.daemon.create("c", 0, volume_content_source=from_volume(self.volume)).volume_id
        assert self.path(self.clone).read_bytes() == _CONTENT + bytes(2 * MIB)

    def _cut_group(self) -> None:
        request = csi.CreateVolumeGroupSnapshotRequest(name="g", source_volume_ids=[self.volume, self.restored])
        self.group = self.daemon.groups.CreateVolumeGroupSnapshot(request).group_snapshot
        assert len(self.group.snapshots) == 2

    def _delete_group(self) -> None:
        members = [one.snapshot_id for one in self.group.snapshots]
        self.daemon.groups.DeleteVolumeGroupSnapshot(
            csi.DeleteVolumeGroupSnapshotRequest(group_snapshot_id=self.group.group_snapshot_id, snapshot_ids=members)
        )

    def _delete_snapshot(self) -> None:
        self.daemon.controller.DeleteSnapshot(csi.DeleteSnapshotRequest(snapshot_id=self.snapshot))

    def _detach(self) -> None:
        self.daemon.controller.ControllerUnpublishVolume(csi.ControllerUnpublishVolumeRequest(volume_id=self.volume))

    def _delete_all(self) -> None:
        for volume_id in (self.volume, self.restored, self.clone):
            self.daemon.controller.DeleteVolume(csi.DeleteVolumeRequest(volume_id=volume_id))

    def _listed(self) -> dict[str, int]:
        return _volumes(self.daemon)


def _volumes(daemon: CsiDaemon) -> dict[str, int]:
    answer = daemon.controller.ListVolumes(csi.ListVolumesRequest())
    return {entry.volume.volume_id: entry.volume.capacity_bytes for entry in answer.entries}


def _snapshots(daemon: CsiDaemon) -> set[str]:
    answer = daemon.controller.ListSnapshots(csi.ListSnapshotsRequest())
    return {entry.snapshot.snapshot_id for entry in answer.entries}


def _on_disk(daemon: CsiDaemon, kind: str) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in (daemon.root / "memory" / kind).iterdir()}


def test_the_points_are_found() -> None:
    assert {"csi.create.made", "csi.group.members", "csi.release.volume", "memory.snapshot.second"} <= set(POINTS)


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_step_everything_is_found_again(point: str, make_daemon: Callable[..., CsiDaemon]) -> None:
    daemon = make_daemon()
    daemon.start(f"{point}=kill")
    life = Life(daemon)
    assert life.run(), f"nothing passes {point}"
    assert daemon.wait() == -9
    acknowledged = {one for one in (life.volume, life.restored, life.clone) if one}
    is_deleting = len(life.steps) == 1
    daemon.start()
    assert _volumes(daemon) == _on_disk(daemon, "volumes")
    assert _snapshots(daemon) == set(_on_disk(daemon, "snapshots"))
    if not is_deleting:
        assert acknowledged <= set(_volumes(daemon))
    assert not life.run()
    assert _volumes(daemon) == {} == _on_disk(daemon, "volumes")
    assert _snapshots(daemon) == set() == set(_on_disk(daemon, "snapshots"))
    assert daemon.stop() == 0


def test_what_no_record_knows_is_logged_and_deleted(make_daemon: Callable[..., CsiDaemon]) -> None:
    daemon = make_daemon()
    daemon.start()
    known = daemon.create("v").volume_id
    daemon.kill()
    unknown = [daemon.root / "memory/volumes" / ids.new_volume_id(), daemon.root / "memory/snapshots" / ids.new_snapshot_id()]
    for path in unknown:
        path.touch()
    daemon.start()
    assert set(_on_disk(daemon, "volumes")) == {known} and _on_disk(daemon, "snapshots") == {}
    assert all(path.name in daemon.log() for path in unknown)


def test_data_without_any_record_is_not_touched(make_daemon: Callable[..., CsiDaemon]) -> None:
    """Somebody lost state.db: better no driver than no data."""
    daemon = make_daemon()
    daemon.start()
    volume_id = daemon.create("v").volume_id
    daemon.stop()
    for path in daemon.root.glob("state.db*"):
        path.rename(path.with_name("kept." + path.name))
    with pytest.raises(RuntimeError, match=volume_id):
        daemon.start()
    assert set(_on_disk(daemon, "volumes")) == {volume_id}
    for path in daemon.root.glob("state.db*"):
        path.unlink()
    for path in daemon.root.glob("kept.*"):
        path.rename(path.with_name(path.name.removeprefix("kept.")))
    daemon.start()
    assert set(_volumes(daemon)) == {volume_id}


def test_a_record_whose_image_is_missing_stays_and_is_unhealthy(make_daemon: Callable[..., CsiDaemon]) -> None:
    daemon = make_daemon()
    daemon.start()
    volume_id, other = daemon.create("v").volume_id, daemon.create("w").volume_id
    daemon.stop()
    (daemon.root / "memory/volumes" / volume_id).unlink()
    daemon.start()
    assert set(_volumes(daemon)) == {volume_id, other}
    (ill,) = daemon.controller.ControllerListVolumeHealth(csi.ControllerListVolumeHealthRequest()).entries
    assert (ill.volume_id, ill.health_statuses[0].reason) == (volume_id, "ImageMissing")
    daemon.controller.DeleteVolume(csi.DeleteVolumeRequest(volume_id=volume_id))
    assert set(_volumes(daemon)) == {other}


def test_names_stand_for_the_same_things_after_a_restart(make_daemon: Callable[..., CsiDaemon]) -> None:
    """Of volumes, clones, restores, snapshots and groups."""
    daemon = make_daemon()
    daemon.start()

    def everything() -> list[Any]:
        volume = daemon.create("v", 2 * MIB, mutable_parameters={"iops": "3"})
        snapshot = daemon.snapshot("s", volume.volume_id)
        restored = daemon.create("r", 2 * MIB, volume_content_source=from_snapshot(snapshot.snapshot_id))
        clone = daemon.create("c", 2 * MIB, volume_content_source=from_volume(volume.volume_id))
        request = csi.CreateVolumeGroupSnapshotRequest(name="g", source_volume_ids=[volume.volume_id, clone.volume_id])
        return [volume, snapshot, restored, clone, daemon.groups.CreateVolumeGroupSnapshot(request).group_snapshot]

    before = everything()
    daemon.kill()
    daemon.start()
    assert everything() == before


def test_a_torn_store_says_so_and_is_left_alone(make_daemon: Callable[..., CsiDaemon]) -> None:
    daemon = make_daemon()
    daemon.start()
    volume_id = daemon.create("v").volume_id
    daemon.stop()
    torn = daemon.root / "state.db"
    shutil.copyfile(torn, daemon.root / "good")
    torn.write_bytes(b"torn" * 1024)
    with pytest.raises(RuntimeError, match=r"state\.db"):
        daemon.start()
    assert torn.read_bytes() == b"torn" * 1024
    shutil.move(daemon.root / "good", torn)
    daemon.start()
    assert set(_volumes(daemon)) == {volume_id}


def test_two_hundred_volumes_made_at_once_and_killed_in_between(make_daemon: Callable[..., CsiDaemon]) -> None:
    daemon = make_daemon()
    daemon.start("csi.create.made=kill:120")
    calls = [daemon.controller.CreateVolume.future(create_request(f"v{number}")) for number in range(200)]
    done = {}
    for number, call in enumerate(calls):
        if call.exception() is None:
            done[number] = call.result().volume.volume_id
    daemon.wait()
    assert 0 < len(done) < 200
    daemon.start()
    assert _volumes(daemon) == _on_disk(daemon, "volumes") and set(done.values()) <= set(_volumes(daemon))
    made = [daemon.create(f"v{number}").volume_id for number in range(200)]
    assert all(made[number] == volume_id for number, volume_id in done.items())
    assert set(made) == set(_on_disk(daemon, "volumes")) and len(set(made)) == 200


def test_a_full_disk_refuses_and_loses_nothing(make_daemon: Callable[..., CsiDaemon], tmp_path: Path) -> None:
    """Records and volumes on a file system of eight MiB: what does not fit leaves nothing, and later calls succeed."""
    with own_mounts():
        (tmp_path / "root").mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(tmp_path / "root")], check=True)
        daemon = make_daemon()
        daemon.start()
        volume_id = daemon.create("v", 2 * MIB).volume_id
        (daemon.root / "memory/volumes" / volume_id).write_bytes(_CONTENT * 2)
        snapshots = []
        with pytest.raises(grpc.RpcError) as refused:
            for number in range(8):
                snapshots.append(daemon.snapshot(f"s{number}", volume_id).snapshot_id)
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED and 1 <= len(snapshots) < 8
        assert _snapshots(daemon) == set(snapshots) == set(_on_disk(daemon, "snapshots"))
        _fill(daemon.root / "filler")
        with pytest.raises(grpc.RpcError) as refused:
            for number in range(1000):
                daemon.create(f"f{number}")
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        before = _volumes(daemon)
        daemon.kill()
        (daemon.root / "filler").unlink()
        daemon.start()
        assert _volumes(daemon) == before == _on_disk(daemon, "volumes")
        assert _snapshots(daemon) == set(snapshots) == set(_on_disk(daemon, "snapshots"))
        assert (daemon.root / "memory/volumes" / volume_id).read_bytes() == _CONTENT * 2
        daemon.controller.DeleteSnapshot(csi.DeleteSnapshotRequest(snapshot_id=snapshots.pop()))
        assert daemon.snapshot("later", volume_id).ready_to_use
        daemon.stop()


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))
