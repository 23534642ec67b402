"""Group snapshots of volumes that are written to: one cut, in the order of the writes."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.api.v1 import csi_pb2_grpc as stubs
from runtime_core.testing.tools import require_program
from runtime_core.testing.volume_file_systems import file_system_directory
from tests.support.csi_daemon import MIB, NODE, CsiDaemon, capability, daemon, from_snapshot

_SIZE = 16 * MIB
#: back end, and the file system below (runtime_core/testing/volume_file_systems.py)
_BACKENDS = [("loop", ""), ("loop", "xfs"), ("btrfs", "btrfs")]


class Used:
    """A driver, and volumes of it that are staged as a kubelet would."""

    def __init__(self, driver: CsiDaemon) -> None:
        self.driver = driver
        self.node: Any = stubs.NodeStub(driver.channel)

    def stage(self, name: str, **more: Any) -> tuple[str, Path]:
        volume_id = self.driver.create(name, _SIZE, **more).volume_id
        path = self.driver.kubelet / "staging" / name
        path.mkdir(parents=True)
        self.driver.controller.ControllerPublishVolume(
            csi.ControllerPublishVolumeRequest(volume_id=volume_id, node_id=NODE, volume_capability=capability())
        )
        self.node.NodeStageVolume(
            csi.NodeStageVolumeRequest(volume_id=volume_id, staging_target_path=str(path), volume_capability=capability())
        )
        return volume_id, path


@pytest.fixture(params=_BACKENDS, ids=lambda one: "-".join(filter(None, one)))
def used(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Used]:
    require_program("mkfs.ext4", "e2fsprogs")
    backend, below = request.param
    (tmp_path / "disk").mkdir()
    with file_system_directory(tmp_path / "disk", below) as root, daemon(tmp_path, backend=backend, root=str(root)) as driver:
        yield Used(driver)


def test_no_write_is_in_the_second_that_is_not_in_the_first(used: Used) -> None:
    """A number goes to one volume, and only when it is durable there to the other. After a restore of the cut the
    second is never ahead of the first, nor more than one behind; and nothing that was written before the cut is lost.
    """
    first, first_path = used.stage("first")
    second, second_path = used.stage("second")
    writer = _Writer(first_path / "log", second_path / "log")
    writer.start()
    try:
        while writer.written < 20:
            writer.progress.wait(1)
        before = writer.written
        request = csi.CreateVolumeGroupSnapshotRequest(name="g", source_volume_ids=[second, first])
        group = used.driver.groups.CreateVolumeGroupSnapshot(request).group_snapshot
    finally:
        writer.stop()
    assert writer.error is None
    restored = {}
    for member in group.snapshots:
        name = f"r-{member.source_volume_id[-6:]}"
        _, path = used.stage(name, volume_content_source=from_snapshot(member.snapshot_id))
        restored[member.source_volume_id] = [int(line) for line in (path / "log").read_text().split()]
    ahead, behind = restored[first], restored[second]
    assert behind == ahead[: len(behind)] and 0 <= len(ahead) - len(behind) <= 1
    assert len(behind) >= before


def test_a_member_of_the_cut_keeps_what_was_there(used: Used) -> None:
    volume_id, path = used.stage("v")
    (path / "kept").write_bytes(b"before")
    os.sync()
    request = csi.CreateVolumeGroupSnapshotRequest(name="g", source_volume_ids=[volume_id])
    (member,) = used.driver.groups.CreateVolumeGroupSnapshot(request).group_snapshot.snapshots
    (path / "kept").write_bytes(b"after")
    _, restored = used.stage("r", volume_content_source=from_snapshot(member.snapshot_id))
    assert (restored / "kept").read_bytes() == b"before" and (path / "kept").read_bytes() == b"after"


class _Writer(threading.Thread):
    def __init__(self, first: Path, second: Path) -> None:
        super().__init__()
        self._files = [os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600) for path in (first, second)]
        self._ended = False
        self.progress = threading.Event()
        self.written = 0
        self.error: OSError | None = None

    def run(self) -> None:
        try:
            while not self._ended:
                for descriptor in self._files:
                    os.write(descriptor, f"{self.written}\n".encode())
                    os.fdatasync(descriptor)
                self.written += 1
                self.progress.set()
        except OSError as error:
            self.error = error
        finally:
            for descriptor in self._files:
                os.close(descriptor)

    def stop(self) -> None:
        self._ended = True
        self.join()
