"""trivet-csi over images killed at every step of the node's calls: data as written, nothing lost, nothing left over."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from csi_driver.api.v1 import csi_pb2 as csi
from runtime_core.kernel import filesystems, loop_device, mounts, syscalls
from runtime_core.testing.tools import require_program
from tests.support.csi_daemon import MIB, NODE, CsiDaemon, Mode, capability
from tests.support.csi_lifecycle import CONTENT, INLINE, SIZE, Lifecycle, devices, leftovers, read, write
from tests.support.csi_node import own_mounts

_ROOT = Path(__file__).parents[3]
_POINT = re.compile(r'failpoint\.hit\("([a-z.-]+)"\)')
#: of the node service and of what it calls in the back end, found in the sources so that a new one is tested at once
POINTS = sorted(
    {
        point
        for folder, kinds in (
            ("csi_driver/node", ("csi.",)),
            ("runtime_core/volumes", ("volume.attached", "volume.detached", "volume.grow.", "volume.mount.formatted")),
        )
        for path in (_ROOT / folder).glob("*.py")
        for point in _POINT.findall(path.read_text())
        if point.startswith(kinds)
    }
)

#: include/uapi/linux/loop.h
_LOOP_CTL_REMOVE = 0x4C81
#: free loop devices with lower numbers stay
_KEPT = 96


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[CsiDaemon]:
    require_program("mkfs.ext4", "e2fsprogs")
    with own_mounts():
        daemon = CsiDaemon(tmp_path, backend="loop")
        for name in ("staging", "pods"):
            (daemon.kubelet / name).mkdir()
        yield daemon
        daemon.close()
        mounts.unmount_below(str(daemon.kubelet))
        remaining = devices(daemon)
        for number in remaining:
            loop_device.detach(number)
        assert remaining == []


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_step_every_call_is_repeated_and_succeeds(point: str, daemon: CsiDaemon) -> None:
    """Whoever passes the point dies there; the kubelet repeats its call to the next daemon, and goes on to the end."""
    life = Lifecycle(daemon)
    daemon.start(failpoints=f"{point}=kill")
    assert life.run(), f"nothing passes {point}"
    daemon.wait()
    daemon.start()
    assert not life.run()
    assert leftovers(daemon) == []


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_step_the_pods_can_be_deleted_instead(point: str, daemon: CsiDaemon) -> None:
    """The kubelet takes everything away without having repeated what failed."""
    life = Lifecycle(daemon)
    daemon.start(failpoints=f"{point}=kill")
    assert life.run(), f"nothing passes {point}"
    daemon.wait()
    daemon.start()
    if not life.block:
        life.create()
    life.give_up()
    assert leftovers(daemon) == []


@pytest.mark.parametrize("point", [point for point in POINTS if not point.startswith("csi.release")])
def test_an_error_at_any_step_leaves_nothing_half_done(point: str, daemon: CsiDaemon) -> None:
    """The call fails; the same daemon serves its repetition."""
    life = Lifecycle(daemon)
    daemon.start(failpoints=f"{point}=error")
    with pytest.raises(grpc.RpcError) as failed:
        life.run()
    assert failed.value.details() == f"failpoint {point}"
    assert not life.run()
    assert leftovers(daemon) == []


def _reboot(daemon: CsiDaemon) -> None:
    """The disk is kept; mounts and loop devices are not."""
    daemon.kill()
    mounts.unmount_below(str(daemon.kubelet))
    for number in devices(daemon):
        loop_device.detach(number)
    daemon.start()


def test_after_a_reboot_the_data_is_there(daemon: CsiDaemon) -> None:
    """Mount, block and inline volumes, staged and published by repeated calls, or taken away."""
    life = Lifecycle(daemon)
    daemon.start()
    for step in (life.create, life.stage, life.publish, life.publish_inline, life.write):
        step()
    for path in (life.target(life.mount), life.target("inline")):
        _sync(path)
    _reboot(daemon)
    for step in (life.stage, life.publish, life.publish_inline, life.check):
        step()
    assert (life.target("inline") / "file").read_bytes() == CONTENT
    _reboot(daemon)
    life.give_up()
    assert leftovers(daemon) == []


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    syscalls.syncfs(descriptor)
    os.close(descriptor)


def test_a_frozen_volume_holds_nobody(daemon: CsiDaemon) -> None:
    """Its writers wait; stats of it and of others are answered, others are staged, published and taken away."""
    life = Lifecycle(daemon)
    daemon.start()
    for step in (life.create, life.stage, life.publish):
        step()
    root = os.open(life.target(life.mount), os.O_RDONLY)
    filesystems.freeze(root)
    try:
        with ThreadPoolExecutor(1) as pool:
            writer = pool.submit((life.target(life.mount) / "file").write_bytes, b"x")
            answer = life.node.NodeGetVolumeStats(
                csi.NodeGetVolumeStatsRequest(volume_id=life.mount, volume_path=str(life.target(life.mount))), timeout=20
            )
            assert len(answer.usage) == 2
            life.publish_inline()
            life.node.NodeUnpublishVolume(
                csi.NodeUnpublishVolumeRequest(volume_id=INLINE, target_path=str(life.target("inline"))), timeout=20
            )
            assert not writer.done()
            filesystems.unfreeze(root)
            assert writer.result(20) == 1
    finally:
        filesystems.unfreeze(root)
        os.close(root)
    life.give_up()
    assert leftovers(daemon) == []


@pytest.mark.parametrize("kind", ["claim", "inline"])
def test_a_volume_that_somebody_left_frozen_can_be_taken_away(kind: str, daemon: CsiDaemon) -> None:
    """Unmounted frozen it would keep its device for ever."""
    life = Lifecycle(daemon)
    daemon.start()
    for step in (life.create, life.stage, life.publish, life.publish_inline):
        step()
    root = os.open(life.target(life.mount if kind == "claim" else "inline"), os.O_RDONLY)
    filesystems.freeze(root)
    os.close(root)
    life.give_up()
    assert leftovers(daemon) == []


def test_two_hundred_devices_are_found_again(daemon: CsiDaemon) -> None:
    """Made, staged and published by calls at once; the driver is killed; everything is taken away by calls at once."""
    life, how = Lifecycle(daemon), capability("block")
    daemon.start()
    volumes: list[str] = []

    def begin(number: int) -> None:
        volume = daemon.create(f"v{number}", MIB, volume_capabilities=[how]).volume_id
        where = {"volume_id": volume, "staging_target_path": life.staging(volume), "volume_capability": how}
        daemon.controller.ControllerPublishVolume(
            csi.ControllerPublishVolumeRequest(volume_id=volume, node_id=NODE, volume_capability=how)
        )
        life.node.NodeStageVolume(csi.NodeStageVolumeRequest(**where))
        life.node.NodePublishVolume(csi.NodePublishVolumeRequest(**where, target_path=str(life.target(volume))))
        write(life.target(volume), volume.encode())
        volumes.append(volume)

    def end(volume: str) -> None:
        life.node.NodeUnpublishVolume(csi.NodeUnpublishVolumeRequest(volume_id=volume, target_path=str(life.target(volume))))
        life.node.NodeUnstageVolume(
            csi.NodeUnstageVolumeRequest(volume_id=volume, staging_target_path=life.staging(volume))
        )  # fmt: skip
        daemon.controller.ControllerUnpublishVolume(csi.ControllerUnpublishVolumeRequest(volume_id=volume, node_id=NODE))
        daemon.controller.DeleteVolume(csi.DeleteVolumeRequest(volume_id=volume))

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(begin, range(200)))
        daemon.kill()
        daemon.start()
        assert len(devices(daemon)) == 200
        for volume in volumes:
            assert read(life.target(volume), len(volume)) == volume.encode()
        list(pool.map(end, volumes))
    assert leftovers(daemon) == []
    _remove_devices(_KEPT)


def _remove_devices(first: int) -> None:
    """Free loop devices from number `first` on: the machine has as many as it had, and lists of them are as short."""
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    for number in sorted((int(name[4:]) for name in os.listdir("/sys/block") if name.startswith("loop")), reverse=True):
        if number >= first and not loop_device.backing_file(number):
            with contextlib.suppress(OSError):  # somebody has taken it meanwhile
                fcntl.ioctl(control, _LOOP_CTL_REMOVE, number)
    os.close(control)


def test_a_full_disk_below_fails_calls_and_loses_nothing(daemon: CsiDaemon) -> None:
    """RESOURCE_EXHAUSTED, nothing half-made; other volumes are served; with space again the same calls succeed."""
    daemon.root.mkdir()
    syscalls.mount("none", str(daemon.root), "tmpfs", 0, "size=48m")
    try:
        life = Lifecycle(daemon)
        daemon.start()
        for step in (life.create, life.stage, life.publish):
            step()
        filler = daemon.root / "filler"
        with pytest.raises(OSError, match="No space left"), filler.open("wb", buffering=0) as file:
            while True:
                file.write(CONTENT)
        with pytest.raises(grpc.RpcError) as full:
            life.publish_inline()
        assert full.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert not life.target("inline").exists()
        filler.unlink()
        life.publish_inline()
        life.write()
        life.check()
        life.give_up()
        assert leftovers(daemon) == []
    finally:
        daemon.close()
        syscalls.umount2(str(daemon.root), syscalls.MNT_DETACH)


def test_two_calls_for_one_volume_at_once(daemon: CsiDaemon) -> None:
    """One is served, the others are told ABORTED; those for other volumes are served."""
    life = Lifecycle(daemon)
    daemon.start(failpoints="csi.stage.made=delay:1000")
    life.create()
    request = csi.NodeStageVolumeRequest(
        volume_id=life.mount, staging_target_path=life.staging(life.mount), volume_capability=capability()
    )
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(lambda: life.node.NodeStageVolume(request)) for _number in range(4)]
        errors = [call.exception() for call in calls]
    codes = [error.code() for error in errors if isinstance(error, grpc.RpcError)]
    assert codes == [grpc.StatusCode.ABORTED] * 3
    assert mounts.current_mount_points().count(life.staging(life.mount)) == 1
    life.give_up()
    assert leftovers(daemon) == []


def test_a_full_volume_is_full_at_its_size(daemon: CsiDaemon) -> None:
    """ENOSPC within, and the disk below holds no more than the size; the volume is emptied and goes on."""
    life = Lifecycle(daemon)
    daemon.start()
    for step in (life.create, life.stage, life.publish):
        step()
    path = life.target(life.mount) / "file"
    with pytest.raises(OSError, match="No space left"), path.open("wb", buffering=0) as file:
        for _number in range(2 * SIZE // MIB):
            file.write(CONTENT)
    image = daemon.root / "loop" / "volumes" / life.mount / "image"
    assert 0.8 * SIZE < path.stat().st_size <= image.stat().st_size == SIZE
    path.unlink()
    path.write_bytes(CONTENT)
    life.give_up()
    assert leftovers(daemon) == []


def test_an_image_that_is_torn_or_gone_is_told_and_holds_nobody(daemon: CsiDaemon) -> None:
    """Staging says what is wrong, health too; the other volume lives; the torn one can be deleted."""
    life = Lifecycle(daemon)
    daemon.start()
    for step in (life.create, life.stage, life.unstage):
        step()
    image = daemon.root / "loop" / "volumes" / life.mount / "image"
    with image.open("r+b") as file:
        file.write(b"\xff" * (2 * MIB))
    with pytest.raises(grpc.RpcError) as torn:
        life.stage()
    assert torn.value.code() in (grpc.StatusCode.DATA_LOSS, grpc.StatusCode.FAILED_PRECONDITION)
    image.unlink()
    (entry,) = life.node.NodeGetVolumeHealth(
        csi.NodeGetVolumeHealthRequest(volume_id=life.mount)
    ).volume_health.health_statuses  # fmt: skip
    assert entry.reason == "ImageMissing"
    torn_one, life.mount = life.mount, ""
    for step in (life.stage, life.publish):
        step()
    life.mount = torn_one
    life.give_up()
    assert leftovers(daemon) == []


def test_block_volumes_for_reading_refuse_writes(daemon: CsiDaemon) -> None:
    """Beside one that takes them, over the same image; the device is writable again for its next user."""
    life = Lifecycle(daemon)
    daemon.start()
    life.create()
    how = capability("block", Mode.MULTI_NODE_MULTI_WRITER)
    staging = life.staging(life.block)
    life.node.NodeStageVolume(
        csi.NodeStageVolumeRequest(volume_id=life.block, staging_target_path=staging, volume_capability=how)
    )  # fmt: skip
    for name, read_only in (("reader", True), ("writer", False)):
        life.node.NodePublishVolume(
            csi.NodePublishVolumeRequest(
                volume_id=life.block, staging_target_path=staging, target_path=str(life.target(name)), volume_capability=how,
                readonly=read_only,
            )
        )  # fmt: skip
    with pytest.raises(OSError):
        write(life.target("reader"), b"x")
    write(life.target("writer"), CONTENT)
    for name in ("reader", "writer"):
        life.node.NodeUnpublishVolume(
            csi.NodeUnpublishVolumeRequest(volume_id=life.block, target_path=str(life.target(name)))
        )  # fmt: skip
    life.give_up()
    assert leftovers(daemon) == []
