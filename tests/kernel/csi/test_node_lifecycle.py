"""A volume's life on a node: staged, published, unpublished, unstaged, each as CSI has it and each twice."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from csi_driver.node.lookup import ephemeral_id
from runtime_core.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, TrivetError
from runtime_core.kernel import loop_device, syscalls
from tests.support.csi_node import SIZE, Mode, NodeService, capability, own_mounts


def test_a_mount_volume_lives_and_nothing_is_left(node: NodeService) -> None:
    """Every call repeated changes nothing; after the last one there is no mount, file or row."""
    volume = node.volume()
    for _repeat in range(2):
        node.stage(volume)
    for _repeat in range(2):
        target = node.publish(volume)
    Path(target, "file").write_text("content")
    assert Path(node.staging(volume), "file").read_text() == "content"
    assert node.mounted() == ["pods/pod", f"staging/{volume}"]
    for _repeat in range(2):
        node.unpublish(volume)
    assert not os.path.lexists(target)
    for _repeat in range(2):
        node.unstage(volume)
    assert node.mounted() == []
    assert node.held() == []
    assert node.backend.detached == [volume]
    assert node.record(volume).staging is None


def test_a_block_volume_is_its_device_at_the_target(node: NodeService) -> None:
    """The target is a block device of the volume's size; what is written there reaches the volume."""
    volume, block = node.volume(block=True), capability(block=True)
    node.stage(volume, volume_capability=block)
    target = node.publish(volume, volume_capability=block)
    assert stat.S_ISBLK(os.stat(target).st_mode)
    device = os.open(target, os.O_RDWR)
    assert os.lseek(device, 0, os.SEEK_END) == SIZE
    os.pwrite(device, b"content", 0)
    os.fsync(device)
    os.close(device)
    assert (node.root / "backend" / volume).read_bytes()[:7] == b"content"
    node.unpublish(volume)
    assert not os.path.lexists(target)
    node.unstage(volume)
    assert loop_device.find(str(node.root / "backend" / volume)) == []
    assert node.held() == []


def test_a_block_volume_published_for_reading_refuses_writes(node: NodeService) -> None:
    """Beside a target that takes them."""
    volume, block = node.volume(block=True), capability(Mode.MULTI_NODE_MULTI_WRITER, block=True)
    node.stage(volume, volume_capability=block)
    node.publish(volume, "writer", volume_capability=block)
    reader = node.publish(volume, "reader", volume_capability=block, readonly=True)
    with pytest.raises(OSError):
        device = os.open(reader, os.O_RDWR)
        try:
            os.pwrite(device, b"x", 0)
            os.fsync(device)
        finally:
            os.close(device)
    writer = os.open(node.target("writer"), os.O_RDWR)
    assert os.pwrite(writer, b"x", 0) == 1
    os.close(writer)


@pytest.mark.parametrize(
    ("mode", "fields"),
    [
        (Mode.SINGLE_NODE_WRITER, {"readonly": True}),
        (Mode.SINGLE_NODE_READER_ONLY, {}),
        (Mode.MULTI_NODE_READER_ONLY, {}),
    ],
)
def test_a_volume_for_reading_refuses_writes(node: NodeService, mode: int, fields: dict[str, Any]) -> None:
    volume = node.volume()
    node.stage(volume, volume_capability=capability(mode))
    target = node.publish(volume, volume_capability=capability(mode), **fields)
    with pytest.raises(OSError, match="Read-only"):
        Path(target, "file").write_text("x")


def test_flags_reach_the_file_system_and_each_target(node: NodeService) -> None:
    """Those of staging reach the back end; a target has those that belong to a mount for itself."""
    volume, many = node.volume(), Mode.MULTI_NODE_MULTI_WRITER
    node.stage(volume, volume_capability=capability(many, flags=("noexec", "discard")))
    assert node.backend.mounted_with[volume] == (("noexec", "discard"), False)
    plain = node.publish(volume, "a", volume_capability=capability(many, flags=("noexec", "discard")))
    strict = node.publish(volume, "b", volume_capability=capability(many, flags=("nosuid,ro",)))
    assert os.statvfs(plain).f_flag & os.ST_NOEXEC
    assert not os.statvfs(plain).f_flag & os.ST_NOSUID
    assert os.statvfs(strict).f_flag & (os.ST_NOSUID | os.ST_RDONLY) == os.ST_NOSUID | os.ST_RDONLY
    with pytest.raises(FailedPrecondition, match="staged without 'sync'"):
        node.publish(volume, "c", volume_capability=capability(many, flags=("sync",)))
    assert not os.path.lexists(node.target("c"))


def test_a_mount_group_owns_what_is_in_the_volume(node: NodeService) -> None:
    """Files, directories and the root, the root setgid; links and what they point to stay as they are."""
    volume, many = node.volume(), Mode.SINGLE_NODE_MULTI_WRITER
    node.stage(volume, volume_capability=capability(many))
    target = Path(node.publish(volume, "a", volume_capability=capability(many)))
    (target / "sub").mkdir()
    (target / "sub" / "file").write_text("x")
    (target / "sub" / "program").write_text("x")
    (target / "sub" / "program").chmod(0o4700)
    outside = node.root / "outside"
    outside.write_text("x")
    (target / "link").symlink_to(outside)
    node.publish(volume, "b", volume_capability=capability(many, group="1234"))
    found = {path: (target / path).stat() for path in (".", "sub", "sub/file", "sub/program")}
    assert {path: status.st_gid for path, status in found.items()} == dict.fromkeys(found, 1234)
    assert found["."].st_mode & 0o2070 == found["sub"].st_mode & 0o2070 == 0o2070
    assert found["sub/file"].st_mode & 0o060 == 0o060
    assert not found["sub/program"].st_mode & 0o6000
    assert outside.stat().st_gid == 0
    (target / "new").write_text("x")
    assert (target / "new").stat().st_gid == 1234


def test_pods_of_two_groups_take_turns(node: NodeService) -> None:
    """The last one to be published owns the files, also when it is the one that the volume was staged for."""
    volume, many = node.volume(), Mode.SINGLE_NODE_MULTI_WRITER
    node.stage(volume, volume_capability=capability(many, group="7"))
    node.stage(volume, volume_capability=capability(many, group="8"))
    for number, group in enumerate(("7", "8", "7")):
        target = Path(node.publish(volume, str(number), volume_capability=capability(many, group=group)))
        (target / "file").touch()
        assert target.stat().st_gid == (target / "file").stat().st_gid == int(group)


@pytest.mark.parametrize("group", ["-1", "4294967295", "wheel", "1 2"])
def test_a_mount_group_is_a_number(node: NodeService, group: str) -> None:
    volume = node.volume()
    with pytest.raises(InvalidArgument, match="volume_mount_group"):
        node.stage(volume, volume_capability=capability(group=group))
    assert node.mounted() == []


@pytest.mark.parametrize(
    ("first", "second", "refused"),
    [
        (Mode.SINGLE_NODE_SINGLE_WRITER, Mode.SINGLE_NODE_SINGLE_WRITER, True),
        (Mode.SINGLE_NODE_WRITER, Mode.SINGLE_NODE_WRITER, True),
        (Mode.SINGLE_NODE_READER_ONLY, Mode.SINGLE_NODE_READER_ONLY, True),
        (Mode.SINGLE_NODE_MULTI_WRITER, Mode.SINGLE_NODE_MULTI_WRITER, False),
        (Mode.MULTI_NODE_MULTI_WRITER, Mode.MULTI_NODE_MULTI_WRITER, False),
        (Mode.MULTI_NODE_SINGLE_WRITER, Mode.MULTI_NODE_SINGLE_WRITER, False),
        (Mode.MULTI_NODE_READER_ONLY, Mode.MULTI_NODE_READER_ONLY, False),
        (Mode.SINGLE_NODE_MULTI_WRITER, Mode.SINGLE_NODE_SINGLE_WRITER, True),
    ],
)
def test_a_second_target_is_for_the_modes_that_share(node: NodeService, first: int, second: int, refused: bool) -> None:
    """CSI, NodePublishVolume, second table, columns three and four."""
    volume = node.volume()
    node.stage(volume, volume_capability=capability(first))
    node.publish(volume, "a", volume_capability=capability(first))
    if refused:
        with pytest.raises(FailedPrecondition, match="target_path"):
            node.publish(volume, "b", volume_capability=capability(second))
        assert not os.path.lexists(node.target("b"))
    else:
        node.publish(volume, "b", volume_capability=capability(second))


@pytest.mark.parametrize(
    "fields",
    [
        {"readonly": True},
        {"volume_capability": capability(Mode.MULTI_NODE_MULTI_WRITER, flags=("nosuid",))},
        {"volume_capability": capability(Mode.SINGLE_NODE_MULTI_WRITER)},
        {"volume_capability": capability(Mode.MULTI_NODE_MULTI_WRITER, group="7")},
    ],
)
def test_the_same_target_otherwise_is_refused(node: NodeService, fields: dict[str, Any]) -> None:
    volume, present = node.volume(), capability(Mode.MULTI_NODE_MULTI_WRITER)
    node.stage(volume, volume_capability=present)
    node.publish(volume, volume_capability=present)
    with pytest.raises(AlreadyExists, match="target_path"):
        node.publish(volume, **{"volume_capability": present, **fields})


def test_staging_otherwise_or_elsewhere_is_refused(node: NodeService) -> None:
    volume = node.volume()
    node.stage(volume)
    with pytest.raises(AlreadyExists, match="staging_target_path"):
        node.stage(volume, volume_capability=capability(flags=("noexec",)))
    with pytest.raises(FailedPrecondition, match="staged at"):
        node.stage(volume, staging_target_path=node.staging("elsewhere"))


@pytest.mark.parametrize(
    ("rpc", "missing"),
    [
        ("NodeStageVolume", "volume_id"),
        ("NodeStageVolume", "staging_target_path"),
        ("NodeStageVolume", "volume_capability"),
        ("NodeUnstageVolume", "volume_id"),
        ("NodeUnstageVolume", "staging_target_path"),
        ("NodePublishVolume", "volume_id"),
        ("NodePublishVolume", "target_path"),
        ("NodePublishVolume", "volume_capability"),
        ("NodeUnpublishVolume", "volume_id"),
        ("NodeUnpublishVolume", "target_path"),
        ("NodeGetVolumeStats", "volume_id"),
        ("NodeGetVolumeStats", "volume_path"),
        ("NodeGetVolumeHealth", "volume_id"),
        ("NodeExpandVolume", "volume_id"),
        ("NodeExpandVolume", "volume_path"),
    ],
)
def test_required_fields_are_required(node: NodeService, rpc: str, missing: str) -> None:
    """By name, before it matters that there is no such volume."""
    with pytest.raises(InvalidArgument, match=f"^{missing}: is missing"):
        node.call(rpc, **_without(rpc, missing))


@pytest.mark.parametrize(
    "rpc",
    ["NodeStageVolume", "NodeUnstageVolume", "NodePublishVolume", "NodeUnpublishVolume",
     "NodeGetVolumeStats", "NodeGetVolumeHealth", "NodeExpandVolume"],
)  # fmt: skip
@pytest.mark.parametrize("volume_id", ["nowhere", "../../etc", "..", "vol-" + "0" * 32, "a\nb", "x" * 5000])
def test_a_volume_that_never_was_is_not_found(node: NodeService, rpc: str, volume_id: str) -> None:
    with pytest.raises(NotFound, match="volume_id"):
        node.call(rpc, **{**_without(rpc, ""), "volume_id": volume_id})


def _without(rpc: str, missing: str) -> dict[str, Any]:
    fields: dict[str, dict[str, Any]] = {
        "NodeStageVolume": {"staging_target_path": "/x", "volume_capability": capability()},
        "NodeUnstageVolume": {"staging_target_path": "/x"},
        "NodePublishVolume": {"staging_target_path": "/x", "target_path": "/y", "volume_capability": capability()},
        "NodeUnpublishVolume": {"target_path": "/y"},
        "NodeGetVolumeStats": {"volume_path": "some/path"},
        "NodeGetVolumeHealth": {},
        "NodeExpandVolume": {"volume_path": "some/path"},
    }
    return {name: value for name, value in {"volume_id": "v", **fields[rpc]}.items() if name != missing}


@pytest.mark.parametrize(
    ("capability", "error", "said"),
    [
        (capability(block=True), FailedPrecondition, "mount volume"),
        (capability(fs_type="ramfs"), FailedPrecondition, "file system"),
        (capability(fs_type="vfat"), InvalidArgument, "fs_type"),
        (capability(Mode.UNKNOWN), InvalidArgument, "access_mode"),
        (capability(flags=("a\0b",)), InvalidArgument, "mount_flags"),
    ],
)
def test_a_capability_that_the_volume_has_not_is_refused(
    node: NodeService, capability: Any, error: type[TrivetError], said: str
) -> None:
    volume = node.volume(fs_type="tmpfs")
    with pytest.raises(error, match=said):
        node.stage(volume, volume_capability=capability)
    assert node.mounted() == node.held() == []


def test_a_volume_is_published_where_it_is_staged_only(node: NodeService) -> None:
    volume = node.volume()
    with pytest.raises(FailedPrecondition, match="not staged"):
        node.publish(volume)
    node.stage(volume)
    with pytest.raises(FailedPrecondition, match="staging_target_path: is missing"):
        node.publish(volume, staging_target_path="")
    with pytest.raises(FailedPrecondition, match="not staged"):
        node.publish(volume, staging_target_path=node.staging("elsewhere"))
    assert not os.path.lexists(node.target())


def test_a_volume_that_is_published_is_not_unstaged(node: NodeService) -> None:
    volume = node.volume()
    node.stage(volume)
    node.publish(volume)
    with pytest.raises(FailedPrecondition, match="still published"):
        node.unstage(volume)
    assert len(node.mounted()) == 2


def test_unstaging_elsewhere_leaves_it_staged(node: NodeService) -> None:
    """CSI: a volume that is not staged at the path is OK."""
    volume = node.volume()
    node.stage(volume)
    node.call("NodeUnstageVolume", volume_id=volume, staging_target_path=node.staging("elsewhere"))
    assert node.mounted() == [f"staging/{volume}"]


def test_attached_is_asked_for(tmp_path: Path) -> None:
    """Where volumes have to be attached, and for reading only where they are attached so."""
    with own_mounts():
        node = NodeService(tmp_path, attach=True)
        elsewhere, reading = node.volume(attached={"n2": False}), node.volume(attached={"n1": True})
        with pytest.raises(FailedPrecondition, match="not attached"):
            node.stage(elsewhere)
        node.stage(reading)
        with pytest.raises(FailedPrecondition, match="reading only"):
            node.publish(reading)
        node.publish(reading, readonly=True)
        node.close()


@pytest.mark.parametrize("name", ["csi-" + "a" * 64, "..", "../x", "a/b", "x" * 128])
def test_an_inline_volume_lives_as_long_as_it_is_published(node: NodeService, name: str) -> None:
    """Whatever the kubelet calls it: no path is made of that."""
    for _repeat in range(2):
        target = node.publish_inline(name)
    Path(target, "file").write_text("x")
    assert os.statvfs(target).f_blocks * os.statvfs(target).f_bsize == 2 << 20
    assert node.backend.volumes() == {ephemeral_id(name)}
    assert node.call("NodeGetVolumeStats", volume_id=name, volume_path=target).usage[0].total == 2 << 20
    node.unpublish(name)
    assert not os.path.lexists(target)
    assert node.backend.volumes() == set()
    assert node.mounted() == node.held() == node.service.records.volumes.all() == []


def test_unpublishing_an_inline_volume_again_is_ok(node: NodeService) -> None:
    node.publish_inline("csi-" + "b" * 64)
    for _repeat in range(2):
        node.unpublish("csi-" + "b" * 64)


@pytest.mark.parametrize(
    ("context", "fields", "said"),
    [
        ({"size": "lots"}, {}, "size"),
        ({"size": "0"}, {}, "size"),
        ({"size": "-1Mi"}, {}, "size"),
        ({"path": "/etc"}, {}, "'path' is not known"),
        ({"color": "green"}, {}, "color"),
        ({}, {"volume_capability": capability(block=True)}, "block"),
        ({}, {"target_path": "/etc"}, "target_path"),
    ],
)
def test_an_inline_volume_that_cannot_be_leaves_nothing(
    node: NodeService, context: dict[str, str], fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidArgument, match=said):
        node.publish_inline("v", context=context, **fields)
    assert node.backend.volumes() == set()
    assert node.mounted() == node.held() == node.service.records.volumes.all() == []


def test_an_inline_volume_has_one_target(node: NodeService) -> None:
    node.publish_inline("v", "a")
    with pytest.raises(FailedPrecondition, match="one target"):
        node.publish_inline("v", "b")
    with pytest.raises(AlreadyExists):
        node.publish_inline("v", "a", context={"size": "3Mi"})


def test_a_device_that_cannot_be_had_leaves_nothing(node: NodeService) -> None:
    """The image is gone: the error is the back end's, no row, mount or directory is left."""
    volume = node.volume()
    (node.root / "backend" / volume).unlink()
    with pytest.raises(NotFound, match="image"):
        node.stage(volume)
    assert node.mounted() == node.held() == []


def test_a_mount_that_vanished_is_made_again(node: NodeService) -> None:
    """Somebody's umount does not make the kubelet's repeated calls fail."""
    volume = node.volume()
    node.stage(volume)
    target = node.publish(volume)
    for path in (target, node.staging(volume)):
        syscalls.umount2(path)
    node.publish(volume)
    assert len(node.mounted()) == 2
    node.unpublish(volume)
    node.unstage(volume)
    assert node.mounted() == node.held() == []
