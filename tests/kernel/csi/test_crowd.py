"""Many callers on few names: every outcome is one that the interface has, and in the end all is as recorded."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.api.v1 import csi_pb2_grpc as stubs
from tests.support.csi_daemon import MIB, NODE, CsiDaemon, capability, create_request, from_snapshot, from_volume

_CALLERS, _CALLS = 8, 60
_EXPECTED = {
    grpc.StatusCode.OK, grpc.StatusCode.ABORTED, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.INVALID_ARGUMENT,
}  # fmt: skip


class Caller:
    def __init__(self, daemon: CsiDaemon, seed: int) -> None:
        self._random = random.Random(seed)
        self._controller: Any = stubs.ControllerStub(daemon.channel)
        self._groups: Any = stubs.GroupControllerStub(daemon.channel)
        self.codes: Counter[grpc.StatusCode] = Counter()

    def run(self) -> Counter[grpc.StatusCode]:
        calls = [
            self._create, self._copy, self._delete, self._snapshot, self._delete_snapshot, self._attach, self._detach,
            self._expand, self._group, self._list,
        ]  # fmt: skip
        for _ in range(_CALLS):
            try:
                self._random.choice(calls)()
            except grpc.RpcError as error:
                self.codes[error.code()] += 1
            else:
                self.codes[grpc.StatusCode.OK] += 1
        return self.codes

    def _volume(self) -> str:
        found = self._controller.ListVolumes(csi.ListVolumesRequest()).entries
        return str(self._random.choice(found).volume.volume_id) if found else "vol-" + "0" * 32

    def _cut(self) -> csi.Snapshot:
        found = self._controller.ListSnapshots(csi.ListSnapshotsRequest()).entries
        return self._random.choice(found).snapshot if found else csi.Snapshot(snapshot_id="snap-" + "0" * 32)

    def _create(self) -> None:
        size = self._random.choice([MIB, MIB, 2 * MIB])
        self._controller.CreateVolume(create_request(f"v{self._random.randrange(6)}", size))

    def _copy(self) -> None:
        source = self._random.choice([lambda: from_snapshot(self._cut().snapshot_id), lambda: from_volume(self._volume())])()
        self._controller.CreateVolume(create_request(f"c{self._random.randrange(6)}", 0, volume_content_source=source))

    def _delete(self) -> None:
        self._controller.DeleteVolume(csi.DeleteVolumeRequest(volume_id=self._volume()))

    def _snapshot(self) -> None:
        request = csi.CreateSnapshotRequest(name=f"s{self._random.randrange(6)}", source_volume_id=self._volume())
        self._controller.CreateSnapshot(request)

    def _delete_snapshot(self) -> None:
        cut = self._cut()
        if cut.group_snapshot_id:
            members = [
                entry.snapshot.snapshot_id
                for entry in self._controller.ListSnapshots(csi.ListSnapshotsRequest()).entries
                if entry.snapshot.group_snapshot_id == cut.group_snapshot_id
            ]
            request = csi.DeleteVolumeGroupSnapshotRequest(group_snapshot_id=cut.group_snapshot_id, snapshot_ids=members)
            self._groups.DeleteVolumeGroupSnapshot(request)
        else:
            self._controller.DeleteSnapshot(csi.DeleteSnapshotRequest(snapshot_id=cut.snapshot_id))

    def _attach(self) -> None:
        self._controller.ControllerPublishVolume(
            csi.ControllerPublishVolumeRequest(volume_id=self._volume(), node_id=NODE, volume_capability=capability())
        )

    def _detach(self) -> None:
        self._controller.ControllerUnpublishVolume(csi.ControllerUnpublishVolumeRequest(volume_id=self._volume()))

    def _expand(self) -> None:
        wanted = csi.CapacityRange(required_bytes=self._random.randrange(1, 4) * MIB)
        self._controller.ControllerExpandVolume(
            csi.ControllerExpandVolumeRequest(volume_id=self._volume(), capacity_range=wanted)
        )

    def _group(self) -> None:
        sources = {self._volume(), self._volume()}
        request = csi.CreateVolumeGroupSnapshotRequest(name=f"g{self._random.randrange(3)}", source_volume_ids=sources)
        self._groups.CreateVolumeGroupSnapshot(request)

    def _list(self) -> None:
        self._controller.ListVolumes(csi.ListVolumesRequest(max_entries=2))
        self._controller.ControllerListVolumeHealth(csi.ControllerListVolumeHealthRequest())


@pytest.mark.parametrize("seed", [1, 2])
def test_a_crowd_leaves_what_is_recorded(make_daemon: Callable[..., CsiDaemon], seed: int) -> None:
    daemon = make_daemon()
    daemon.start()
    callers = [Caller(daemon, seed * 100 + number) for number in range(_CALLERS)]
    with ThreadPoolExecutor(_CALLERS) as pool:
        codes = sum(pool.map(Caller.run, callers), Counter())
    assert set(codes) <= _EXPECTED and codes[grpc.StatusCode.OK] > _CALLERS * _CALLS // 4
    before = _state(daemon)
    daemon.kill()
    daemon.start()
    assert _state(daemon) == before
    assert "was not finished" not in daemon.log() and "no record knows" not in daemon.log()


def _state(daemon: CsiDaemon) -> tuple[dict[str, int], set[str]]:
    """By the lists, which are what is on disk."""
    volumes = {
        entry.volume.volume_id: entry.volume.capacity_bytes
        for entry in daemon.controller.ListVolumes(csi.ListVolumesRequest()).entries
    }
    snapshots = {entry.snapshot.snapshot_id for entry in daemon.controller.ListSnapshots(csi.ListSnapshotsRequest()).entries}
    on_disk = {path.name: path.stat().st_size for path in (daemon.root / "memory/volumes").iterdir()}
    assert volumes == on_disk and snapshots == {path.name for path in (daemon.root / "memory/snapshots").iterdir()}
    return volumes, snapshots
