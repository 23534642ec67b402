"""Run in the guest by test_volumes.py: trivet-csi grows what is mounted, which takes CAP_SYS_RESOURCE."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.api.v1 import csi_pb2_grpc as stubs
from runtime_core.kernel import mounts
from tests.support.csi_daemon import MIB, CsiDaemon, capability

_CONTENT = os.urandom(4 * MIB)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[CsiDaemon]:
    made = CsiDaemon(tmp_path, backend="loop", attach=False)
    (made.kubelet / "pods").mkdir()
    (made.kubelet / "staging").mkdir()
    made.start()
    yield made
    made.close()
    mounts.unmount_below(str(tmp_path))


@pytest.mark.parametrize(("fs_type", "size"), [("ext4", 64 * MIB), ("xfs", 320 * MIB)])
def test_a_mounted_volume_grows(daemon: CsiDaemon, fs_type: str, size: int) -> None:
    """Four times the size, seen by a file that stays open, in the same mount: content kept, new space writable, sound after."""
    node = stubs.NodeStub(daemon.channel)
    how = capability(fs_type=fs_type)
    volume = daemon.create("grows", size, volume_capabilities=[how]).volume_id
    staging, target = daemon.kubelet / "staging" / "one", daemon.kubelet / "pods" / "one"
    staging.mkdir()
    where = {"volume_id": volume, "staging_target_path": str(staging), "volume_capability": how}
    node.NodeStageVolume(csi.NodeStageVolumeRequest(**where))
    node.NodePublishVolume(csi.NodePublishVolumeRequest(target_path=str(target), **where))
    with (target / "file").open("w+b", buffering=0) as file:
        file.write(_CONTENT)
        before, mounted, device = _total(target), _mounts(daemon), target.stat().st_dev
        assert before <= size

        answer = daemon.controller.ControllerExpandVolume(
            csi.ControllerExpandVolumeRequest(
                volume_id=volume, capacity_range=csi.CapacityRange(required_bytes=4 * size), volume_capability=how
            )
        )
        assert (answer.capacity_bytes, answer.node_expansion_required) == (4 * size, True)
        assert _total(target) == before
        for _time in range(2):
            grown = node.NodeExpandVolume(csi.NodeExpandVolumeRequest(volume_path=str(target), **where))
            assert grown.capacity_bytes == 4 * size

        assert 3.5 * before < _total(target) <= 4 * size
        assert (_mounts(daemon), target.stat().st_dev) == (mounted, device)
        assert os.pread(file.fileno(), len(_CONTENT), 0) == _CONTENT
        os.posix_fallocate(file.fileno(), 0, 2 * size)  # more than the file system had
        file.seek(2 * size - len(_CONTENT))
        file.write(_CONTENT)
        os.fsync(file.fileno())
    request = csi.NodeGetVolumeStatsRequest(volume_id=volume, volume_path=str(target), staging_target_path=str(staging))
    stats = node.NodeGetVolumeStats(request)
    assert next(one.total for one in stats.usage if one.unit == csi.VolumeUsage.BYTES) == _total(target)
    assert not stats.volume_condition.abnormal
    node.NodeUnpublishVolume(csi.NodeUnpublishVolumeRequest(volume_id=volume, target_path=str(target)))
    node.NodeUnstageVolume(csi.NodeUnstageVolumeRequest(volume_id=volume, staging_target_path=str(staging)))
    assert _mounts(daemon) == []
    image = next(daemon.root.rglob("image"))
    check = {"ext4": ["e2fsck", "-fn"], "xfs": ["xfs_repair", "-n"]}[fs_type]
    subprocess.run([*check, str(image)], check=True)
    daemon.controller.DeleteVolume(csi.DeleteVolumeRequest(volume_id=volume))
    assert list(daemon.root.rglob("image")) == []


def _total(path: Path) -> int:
    found = os.statvfs(path)
    return found.f_blocks * found.f_frsize


def _mounts(daemon: CsiDaemon) -> list[str]:
    """With their ids and attributes: one that is made anew has another id. The file system's own options may change."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.partition(" - ")[0] for line in lines if str(daemon.kubelet) in line]
