"""Copies of a volume's mounts in the mount namespaces of others, as every start of a container makes one for a moment."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from csi_driver.api.v1 import csi_pb2 as csi
from runtime_core.kernel import loop_device, syscalls
from runtime_core.testing.tools import require_program
from runtime_core.testing.volume_file_systems import file_system_directory
from tests.support.csi_daemon import MIB, capability
from tests.support.csi_lifecycle import devices, leftovers
from tests.support.csi_pods import Pods, pods
from tests.support.mount_copies import copy, storm

_ROUNDS = 12


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Pods]:
    require_program("mkfs.ext4", "e2fsprogs")
    with pods(tmp_path) as made:
        yield made


def _live(made: Pods, volume: str) -> None:
    """Published, written to, and taken away to the end."""
    (made.publish(volume) / "file").write_bytes(b"x" * MIB)
    made.unpublish(volume)
    made.unstage(volume)
    assert devices(made.daemon) == []


def test_where_mount_namespaces_come_and_go_a_volume_ends_at_once(made: Pods) -> None:
    """When NodeUnstageVolume returns the device is free, so that DeleteVolume finds nobody."""
    with storm():
        for number in range(_ROUNDS):
            volume = made.create(f"v{number}", size=16 * MIB)
            _live(made, volume)
            made.delete(volume)
            made.publish_inline(f"csi-{number:064x}", "inline")
            made.unpublish(f"csi-{number:064x}", "inline")
    assert leftovers(made.daemon) == []


def test_what_asks_whether_a_volume_is_mounted_is_not_misled(made: Pods) -> None:
    """Staged again, expanded, cut and restored right after it was unstaged; read-only after it was not."""
    volume = made.create("v", size=16 * MIB)
    with storm():
        for number in range(1, _ROUNDS):
            _live(made, volume)
            made.daemon.snapshot(f"s{number}", volume)
            assert not made.expand(volume, (16 + number) * MIB), "nobody has it on a node"
            made.how[volume] = capability(mode=csi.VolumeCapability.AccessMode.SINGLE_NODE_READER_ONLY)
            made.stage(volume)
            made.unstage(volume)
            made.how[volume] = capability()
            made.stage(volume)
            staged = os.statvfs(made.daemon.kubelet / "staging" / volume)
            assert staged.f_blocks * staged.f_frsize > (16 + number) * MIB * 0.7, "grown while nobody had it"
    made.unstage(volume)
    made.delete(volume)


@pytest.mark.parametrize(("backend", "below"), [("btrfs", "btrfs"), ("directory", "xfs")])
def test_other_back_ends_end_volumes_beside_copies(backend: str, below: str, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    how = {"parameters": {"enforcement": "none"}} if backend == "directory" else {}
    with (
        file_system_directory(tmp_path / "disk", below) as root,
        pods(tmp_path, backend=backend, root=str(root)) as made,
        storm(),
    ):
        for number in range(_ROUNDS):
            volume = made.create(f"v{number}", size=16 * MIB, **how)
            made.publish(volume)
            made.unpublish(volume)
            made.unstage(volume)
            made.delete(volume)
        assert list((root / backend / "volumes").iterdir()) == []


def test_a_copy_that_stays_does_not_hold_the_volume(made: Pods) -> None:
    """A program's own mount namespace is no use of the volume; the staging directory stays as the kubelet made it."""
    volume = made.create("v", size=16 * MIB)
    made.unstage(volume)
    staging = made.daemon.kubelet / "staging" / volume
    staging.chmod(0o710)
    os.chown(staging, -1, 77)
    made.stage(volume)
    made.publish(volume)
    made.publish_inline("csi-" + "2" * 64, "inline")
    with copy():
        made.unpublish("csi-" + "2" * 64, "inline")
        made.unpublish(volume)
        made.unstage(volume)
        assert (stat.S_IMODE(staging.stat().st_mode), staging.stat().st_gid) == (0o710, 77)
        assert os.listdir(staging.parent) == [volume]
        made.delete(volume)
        assert leftovers(made.daemon) == []


def test_a_full_disk_of_the_kubelet_keeps_no_volume(made: Pods) -> None:
    """There is no room for another directory; copies go with their namespaces then."""
    staging = made.daemon.kubelet / "staging"
    syscalls.mount("none", str(staging), "tmpfs", 0, "nr_inodes=2")
    try:
        volume = made.create("v", size=16 * MIB)
        with pytest.raises(OSError, match="No space left"):
            (staging / "more").mkdir()
        made.unstage(volume)
        made.delete(volume)
        assert leftovers(made.daemon) == [f"mount {staging}"]
    finally:
        syscalls.umount2(str(staging), syscalls.MNT_DETACH)


@pytest.mark.parametrize("kind", ["mount", "block"])
def test_who_holds_it_is_named_and_ends_it(kind: str, made: Pods) -> None:
    """UNAVAILABLE until the program has gone; the volume is neither lost nor deleted meanwhile."""
    volume = made.create("v", capability(kind), 16 * MIB)
    target = made.publish(volume)
    used = target if kind == "block" else target / "file"
    if kind == "mount":
        used.write_bytes(b"kept")
    with copy(str(used)) as pid:
        made.unpublish(volume)
        with pytest.raises(grpc.RpcError) as refused:
            made.unstage(volume)
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        assert f"{pid} (holder)" in str(refused.value.details())
        with pytest.raises(grpc.RpcError) as refused:
            made.delete(volume)
        assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        made.stage(volume)
        target = made.publish(volume)
        if kind == "mount":
            assert (target / "file").read_bytes() == b"kept"
        made.unpublish(volume)
    made.unstage(volume)
    made.delete(volume)
    assert leftovers(made.daemon) == []


def test_a_mount_elsewhere_in_another_namespace_is_named(made: Pods, tmp_path: Path) -> None:
    """A container's own mount of the volume, say, which nothing that is done at the kubelet's paths reaches."""
    volume = made.create("v", size=16 * MIB)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with copy(bound=(str(made.publish(volume)), str(elsewhere))) as pid:
        made.unpublish(volume)
        with pytest.raises(grpc.RpcError) as refused:
            made.unstage(volume)
        assert f"a mount at {elsewhere} in the namespace of {pid} (holder)" in str(refused.value.details())
    made.unstage(volume)
    made.delete(volume)
    assert leftovers(made.daemon) == []


def test_who_works_in_a_target_is_named(made: Pods) -> None:
    volume = made.create("v", size=16 * MIB)
    target = made.publish(volume)
    directory = os.open(target, os.O_RDONLY)
    try:
        reader = os.fork()
        if reader == 0:
            os.fchdir(directory)
            os.close(directory)
            os.execv("/bin/sleep", ["sleep", "100"])
    finally:
        os.close(directory)
    try:
        with pytest.raises(grpc.RpcError) as refused:
            made.unpublish(volume)
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        assert f"target_path: is in use by {reader} (" in str(refused.value.details())
    finally:
        os.kill(reader, 9)
        os.waitpid(reader, 0)
    made.end(volume)


def test_a_device_that_has_gone_to_another_image_is_left_alone(tmp_path: Path) -> None:
    """Between the look at a device that was given back and the next step its number may be somebody else's."""
    ours, other = tmp_path / "ours", tmp_path / "other"
    for image in (ours, other):
        image.write_bytes(bytes(MIB))
    number = loop_device.attach(str(other), read_only=False)
    try:
        loop_device.detach(number, str(ours))
        assert loop_device.find(str(other)) == [number]
    finally:
        loop_device.detach(number, str(other))
    assert loop_device.find(str(other)) == []
