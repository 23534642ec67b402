"""The node service after a start: a crash's leftovers are undone, and a reboot keeps no call from succeeding."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from csi_driver.node.lookup import ephemeral_id
from csi_driver.node.recover import recover_node
from csi_driver.records.schema import Staging, VolumeRecord
from runtime_core.kernel import filesystems, loop_device, mounts, syscalls
from runtime_core.testing.tools import require_program
from tests.support.csi_node import Mode, NodeService, capability

_BLOCK = capability(Mode.MULTI_NODE_MULTI_WRITER, block=True)


def _restart(node: NodeService) -> None:
    node.stop()
    node.start()
    recover_node(node.service)


def _reboot(node: NodeService) -> None:
    """The disk is kept; mounts and loop devices are not."""
    node.stop()
    mounts.unmount_below(str(node.kubelet))
    for name in node.backend.volumes():
        node.backend.detach(name)
    node.start()
    recover_node(node.service)


def test_a_restart_keeps_what_is_mounted(node: NodeService) -> None:
    """Staged, published and inline volumes, with their data; every repeated call is OK."""
    volume, device = node.volume(), node.volume(block=True)
    node.stage(volume)
    node.stage(device, volume_capability=_BLOCK)
    target = node.publish(volume)
    node.publish(device, "device", volume_capability=_BLOCK)
    inline = node.publish_inline("inline", "inline")
    Path(target, "file").write_text("kept")
    Path(inline, "file").write_text("kept")
    before = _state(node)
    _restart(node)
    assert _state(node) == before
    node.stage(volume)
    node.publish(volume)
    node.publish_inline("inline", "inline")
    assert Path(target, "file").read_text() == Path(inline, "file").read_text() == "kept"
    assert _state(node) == before


def _state(node: NodeService) -> tuple[list[str], list[tuple[str, str]], dict[str, VolumeRecord]]:
    return node.mounted(), sorted(node.held()), {record.id: record for record in node.service.records.volumes.all()}


def test_after_a_reboot_volumes_are_staged_and_published_again(node: NodeService) -> None:
    """A mount volume and a block volume: the kubelet's calls for pods that still are, and nothing is mounted twice."""
    volume, device = node.volume(), node.volume(block=True)
    for _boot in range(2):
        node.stage(volume)
        node.stage(device, volume_capability=_BLOCK)
        node.publish(volume)
        target = node.publish(device, "device", volume_capability=_BLOCK)
        assert stat.S_ISBLK(os.stat(target).st_mode)
        assert node.mounted() == ["pods/device", "pods/pod", f"staging/{volume}"]
        _reboot(node)
        assert node.record(volume).targets == node.record(device).targets == {}
        assert os.listdir(node.kubelet / "pods") == []
    node.unstage(volume)
    node.unstage(device)
    assert node.held() == []
    assert loop_device.find(str(node.root / "backend" / device)) == []


def test_after_a_reboot_volumes_are_unpublished_and_unstaged(node: NodeService) -> None:
    """The kubelet's calls for pods that are gone."""
    volume, device = node.volume(), node.volume(block=True)
    node.stage(volume)
    node.stage(device, volume_capability=_BLOCK)
    node.publish(volume)
    node.publish(device, "device", volume_capability=_BLOCK)
    _reboot(node)
    node.unpublish(volume)
    node.unpublish(device, "device")
    node.unstage(volume)
    node.unstage(device)
    assert node.mounted() == node.held() == []
    assert node.record(volume).staging is node.record(device).staging is None


def test_an_inline_volume_survives_a_reboot_with_its_pod(node: NodeService) -> None:
    """Its record stays while the pod's directory does, and the kubelet publishes it again or takes it away."""
    (node.kubelet / "pods" / "a").mkdir()
    node.publish_inline("inline", "a/mount")
    _reboot(node)
    target = node.publish_inline("inline", "a/mount")
    assert node.mounted() == [str(Path(target).relative_to(node.kubelet))]
    _reboot(node)
    node.unpublish("inline", "a/mount")
    assert node.backend.volumes() == set()
    assert node.held() == []


def test_an_inline_volume_goes_with_its_pods_directory(node: NodeService) -> None:
    """Nobody will ever unpublish it."""
    (node.kubelet / "pods" / "a").mkdir()
    node.publish_inline("inline", "a/mount")
    node.stop()
    mounts.unmount_below(str(node.kubelet))
    shutil.rmtree(node.kubelet / "pods" / "a")
    node.start()
    recover_node(node.service)
    assert node.backend.volumes() == set()
    assert node.held() == node.service.records.volumes.all() == []


def _mounted_for(node: NodeService, volume: str, path: str) -> None:
    os.makedirs(path, exist_ok=True)
    tree = node.backend.mount(node.record(volume).volume(), (), read_only=False)
    place = os.open(path, os.O_PATH)
    mounts.attach(tree, place)
    os.close(tree)
    os.close(place)


def _half_staged(node: NodeService, volume: str) -> None:
    path = node.staging(volume)
    node.service.ledger.acquire(volume, ("staging", path))
    _mounted_for(node, volume, path)


def _half_published(node: NodeService, volume: str) -> None:
    node.service.ledger.acquire(volume, ("target", node.target()))
    _mounted_for(node, volume, node.target())


def _half_inline(node: NodeService, volume: str) -> None:
    own = ephemeral_id("inline")
    node.service.ledger.acquire(own, ("ephemeral", own))
    record = replace(node.record(volume), id=own, name="inline", ephemeral=True, phase="making")
    node.service.records.volumes.put(own, record)
    node.backend.create(record.volume(), None)
    node.service.ledger.acquire(own, ("target", node.target()))
    _mounted_for(node, own, node.target())


def _half_deleted_inline(node: NodeService, volume: str) -> None:
    node.publish_inline("inline")
    own = ephemeral_id("inline")
    node.service.records.volumes.update(own, lambda now: replace(now, phase="deleting"))


@pytest.mark.parametrize("leave", [_half_staged, _half_published, _half_inline, _half_deleted_inline])
def test_what_a_crash_left_half_done_is_undone(node: NodeService, leave: Callable[[NodeService, str], None]) -> None:
    volume = node.volume()
    leave(node, volume)
    assert len(node.mounted()) == 1
    _restart(node)
    assert node.mounted() == node.held() == []
    assert node.backend.volumes() == {volume}
    assert os.listdir(node.kubelet / "pods") == []
    assert volume in node.backend.detached


def test_a_row_of_what_stands_there_now_and_is_not_ours_touches_nothing(node: NodeService) -> None:
    """Files at a target that a crash never reached: the row goes, the files stay."""
    volume = node.volume()
    node.service.ledger.acquire(volume, ("target", node.target()))
    Path(node.target()).mkdir()
    Path(node.target(), "file").write_text("x")
    _restart(node)
    assert Path(node.target(), "file").read_text() == "x"
    assert node.held() == []


def test_a_mount_of_our_image_that_no_record_knows_goes(node: NodeService) -> None:
    """A foreign one stays."""
    volume = node.volume(block=True)
    image = str(node.root / "backend" / volume)
    number = loop_device.attach(image, read_only=False)
    _format(loop_device.device_node(number))
    for name, source, kind in (("ours", loop_device.device_node(number), "ext4"), ("foreign", "none", "tmpfs")):
        os.mkdir(node.target(name))
        syscalls.mount(source, node.target(name), kind)
    _restart(node)
    assert node.mounted() == ["pods/foreign"]
    assert loop_device.find(image) == []


def test_a_frozen_volume_is_thawed(node: NodeService) -> None:
    """A driver that died within a snapshot leaves it frozen, and pods waiting."""
    volume = node.volume(size=16 << 20)
    number = loop_device.attach(str(node.root / "backend" / volume), read_only=False)
    _format(loop_device.device_node(number))
    syscalls.mount(loop_device.device_node(number), node.staging(volume), "ext4")
    path = node.staging(volume)
    node.service.ledger.acquire(volume, ("staging", path))
    node.service.records.volumes.update(volume, lambda now: replace(now, staging=Staging(path=path)))
    frozen = os.open(path, os.O_RDONLY)
    filesystems.freeze(frozen)
    _restart(node)
    assert filesystems.unfreeze(frozen) is False
    os.close(frozen)


def _format(device: str) -> None:
    subprocess.run([require_program("mkfs.ext4", "e2fsprogs"), "-q", device], check=True)


def test_one_volume_that_cannot_be_recovered_does_not_hold_the_others(node: NodeService) -> None:
    """It is told, and recovered at the next start."""
    bad, good = node.volume(), node.volume()
    for volume in (bad, good):
        node.stage(volume)
    node.stop()
    mounts.unmount_below(str(node.kubelet))
    shutil.rmtree(node.staging(bad))
    os.symlink("/etc", node.kubelet / "staging" / bad)
    node.start()
    recover_node(node.service)
    assert bad in node.log.getvalue()
    assert node.record(good).staging is None
    os.unlink(node.kubelet / "staging" / bad)
    _restart(node)
    assert node.record(bad).staging is None


def test_targets_of_a_volume_that_is_gone_are_given_back(node: NodeService) -> None:
    """A record that no longer has the target: the row decides."""
    volume = node.volume()
    node.stage(volume)
    node.publish(volume)
    node.service.records.volumes.update(volume, lambda now: replace(now, targets={}))
    _restart(node)
    assert node.mounted() == [f"staging/{volume}"]


def test_two_hundred_volumes_are_found_again(node: NodeService) -> None:
    """After a restart and after a reboot; nothing is mounted twice, nothing is left."""
    volumes = [node.volume(size=1 << 20) for _number in range(200)]
    for _boot in range(2):
        for volume in volumes:
            node.stage(volume)
            node.publish(volume, volume)
        _restart(node)
        for volume in volumes:
            node.publish(volume, volume)
        assert len(node.mounted()) == 400
        _reboot(node)
    for volume in volumes:
        node.unpublish(volume, volume)
        node.unstage(volume)
    assert node.mounted() == node.held() == os.listdir(node.kubelet / "pods") == []
