"""The loop back end where things go wrong: errors in the file system, images that vanish, writers that do not stop."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from plugins.volumes.loop import LoopBackend
from runtime_core.errors import DataLoss, DeadlineExceeded, FailedPrecondition, InvalidArgument, ResourceExhausted
from runtime_core.interfaces.volume import Source, Volume
from runtime_core.kernel import filesystems, loop_device
from runtime_core.testing.volume_environment import VolumeEnvironment, wait_for, wait_until
from runtime_core.testing.volume_file_systems import file_system_directory
from runtime_core.testing.volume_writers import check_order, writer
from runtime_core.volumes import image_filesystem, programs

#: include/uapi/linux/fs.h, with flag 1: the log is flushed, nothing else
MIB, _FS_IOC_SHUTDOWN = 1 << 20, 0x8004587D


def reasons(env: VolumeEnvironment, volume: Volume, mounted: Path | str) -> list[str]:
    return [problem.reason for problem in env.backend.problems(volume, str(mounted))]


def test_an_error_of_the_file_system(loop: VolumeEnvironment, volume: Volume) -> None:
    """It takes no more writes, and is told without asking the file system; Linux 6.12 calls that no read-only mount."""
    with loop.open(volume) as mounted:
        number = loop_device.find(image(loop))[0]
        Path(f"/sys/fs/ext4/loop{number}/trigger_fs_error").write_text("test")
        told = set(reasons(loop, volume, mounted))
        assert {"FilesystemError"} <= told <= {"FilesystemError", "ReadOnlyRemount"}
        with pytest.raises(OSError, match=r"Read-only|Input/output"):
            (mounted / "file").touch()
    with loop.open(volume) as mounted:  # the check before the next mount puts it right
        assert reasons(loop, volume, mounted) == []
        (mounted / "file").touch()


def test_a_file_system_that_shut_down(loop: VolumeEnvironment) -> None:
    """FilesystemError; xfs says it nowhere, but does not let its root be opened. The next mount has what was synced."""
    env = replace(loop, fs_type="xfs")
    volume = env.create_volume("x")
    with env.open(volume) as mounted:
        env.write(mounted, b"synced")
        root = os.open(mounted, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.ioctl(root, _FS_IOC_SHUTDOWN, (1).to_bytes(4, "little"))
        os.close(root)
        assert reasons(env, volume, mounted) == ["FilesystemError"]
    with env.open(volume) as mounted:
        assert env.read(mounted, 6) == b"synced"


def test_an_image_that_vanishes(loop: VolumeEnvironment, volume: Volume) -> None:
    """ImageMissing and DeviceGone, mounted; detach gives the device back all the same."""
    with loop.open(volume) as mounted:
        os.unlink(image(loop))
        assert reasons(loop, volume, mounted) == ["ImageMissing", "DeviceGone"]
    assert reasons(loop, volume, "") == ["ImageMissing"]


def test_a_device_that_somebody_detached(loop: VolumeEnvironment) -> None:
    """DeviceGone."""
    block = loop.create_volume("b", "block")
    device = loop.backend.device(block, read_only=False)
    assert reasons(loop, block, device) == []
    loop_device.detach(int(device.removeprefix("/dev/loop")))
    wait_until(lambda: reasons(loop, block, device) == ["DeviceGone"], "nobody notices")


def test_a_mounted_volume_is_not_deleted(loop: VolumeEnvironment, volume: Volume) -> None:
    """FailedPrecondition, also when only a mount that nobody sees holds it; afterwards it can be."""
    mounted = loop.backend.mount(volume, [], read_only=False)
    with pytest.raises(FailedPrecondition, match="v is mounted"):
        loop.backend.delete("v")
    os.close(mounted)
    loop.backend.delete("v")
    assert loop.backend.volumes() == set()


def test_a_torn_image(loop: VolumeEnvironment, volume: Volume) -> None:
    """Shorter than the volume: told, not hidden."""
    os.truncate(image(loop), volume.size // 2)
    assert reasons(loop, volume, "") == ["ImageMissing"]


def test_after_a_crash_of_the_node(loop: VolumeEnvironment, volume: Volume) -> None:
    """An image as it lay on disk while it was mounted is checked and mounted with all that was synced."""
    with loop.open(volume) as mounted:
        loop.write(mounted, b"synced")
        shutil.copy(image(loop), image(loop) + ".crashed")
    os.rename(image(loop) + ".crashed", image(loop))
    with loop.open(volume) as mounted:
        assert loop.read(mounted, 6) == b"synced"


def test_damage_that_only_a_person_can_repair(loop: VolumeEnvironment, volume: Volume) -> None:
    """DataLoss names the image, and nothing is attached."""
    with loop.open(volume) as mounted:
        for number in range(50):
            (mounted / f"dir{number}").mkdir()
    with open(image(loop), "r+b") as file:  # the first inode table, under a superblock that knows of an error
        file.seek(1024 + 0x3A)
        file.write(b"\x02\x00")
        for offset in range(64 * 1024, 2 * MIB, 4096):
            file.seek(offset)
            file.write(os.urandom(512))
    with pytest.raises(DataLoss, match="e2fsck"):
        loop.backend.mount(volume, [], read_only=False)
    assert loop_device.find(image(loop)) == []


@pytest.mark.parametrize("members", [1, 2])
def test_busy_volumes_are_frozen_and_cut(loop: VolumeEnvironment, members: int) -> None:
    """Without reflinks below, and with a writer that never stops: never Unavailable, always one instant."""
    volumes = [loop.create_volume(name) for name in "vw"[:members]]
    group = list(zip("st", volumes, strict=False))
    second = loop.open(volumes[-1]) if members == 2 else loop.mounted(volumes[0])
    with loop.open(volumes[0]) as one, second as two, writer(one, two):
        wait_for(two / "second-10")
        loop.backend.snapshot(group)
    copies = [replace(volume, id=f"c{volume.id}") for volume in volumes]
    for copy, (snapshot_id, volume) in zip(copies, group, strict=True):
        loop.backend.create(copy, Source("snapshot", snapshot_id, volume))
    with loop.open(copies[0]) as one, loop.open(copies[-1]) if members == 2 else loop.mounted(copies[0]) as two:
        assert check_order(one, two) >= 10


def test_a_copy_that_takes_too_long_lets_the_writers_go(tmp_path: Path, loop: VolumeEnvironment, volume: Volume) -> None:
    """DeadlineExceeded, no snapshot, and the file system is not frozen any more."""
    with loop.open(volume) as mounted:
        (mounted / "big").write_bytes(os.urandom(24 * MIB))
        hasty = LoopBackend(str(tmp_path / "root"), {"freeze-timeout": 1e-6})
        with pytest.raises(DeadlineExceeded):
            hasty.snapshot([("s", volume)])
        assert hasty.snapshots() == set()
        for thread in threading.enumerate():
            if thread.name == "freeze":
                thread.join(10)  # the one that thaws
        loop.write(mounted, b"works")
        loop.backend.snapshot([("s", volume)])


def test_reflinks_are_used_where_there_are(tmp_path: Path) -> None:
    """On xfs a snapshot takes no space: its extents are the volume's."""
    (tmp_path / "targets").mkdir()
    with file_system_directory(tmp_path, "xfs") as below:
        env = VolumeEnvironment(
            lambda: LoopBackend(str(below), {}), LoopBackend(str(below), {}), tmp_path / "targets", "ext4", {}, 32 * MIB
        )
        volume = env.create_volume("v", "block")
        with env.open(volume) as device:
            env.write(device, os.urandom(8 * MIB))
        env.backend.snapshot([("s", volume)])
        places = []
        for path in (below / "volumes/v/image", below / "snapshots/s/image"):
            with open(path, "rb") as file:
                places.append(list(filesystems.extents(file.fileno(), 0, volume.size)))
        assert places[0] == places[1] != []


def test_space_that_is_set_aside(loop: VolumeEnvironment) -> None:
    """`allocation: full` takes it at once, at creation or later, and at each expansion."""
    full = replace(loop.volume("f"), parameters={"allocation": "full"})
    loop.backend.create(full, None)
    assert os.stat(image(loop, "f")).st_blocks * 512 >= full.size
    sparse = loop.create_volume("v")
    assert os.stat(image(loop)).st_blocks * 512 < MIB
    loop.backend.modify(replace(sparse, parameters={"allocation": "full"}))
    assert os.stat(image(loop)).st_blocks * 512 >= sparse.size
    with loop.open(full) as mounted:
        loop.write(mounted, b"works")
    assert os.stat(image(loop, "f")).st_blocks * 512 >= full.size


def test_the_disk_is_full(tmp_path: Path) -> None:
    """ResourceExhausted, nothing is left, and what was there still works."""
    (tmp_path / "targets").mkdir()
    with file_system_directory(tmp_path, "xfs") as below:
        backend = LoopBackend(str(below), {})
        env = VolumeEnvironment(lambda: backend, backend, tmp_path / "targets", "ext4", {}, 32 * MIB)
        free = backend.capacity().available
        filler = replace(env.volume("f", "block", free - 128 * MIB), parameters={"allocation": "full"})
        backend.create(filler, None)
        with pytest.raises(ResourceExhausted):
            backend.create(replace(env.volume("g", "block", 512 * MIB), parameters={"allocation": "full"}), None)
        with pytest.raises(ResourceExhausted):
            backend.expand(replace(filler, size=filler.size + 512 * MIB))
        assert backend.volumes() == {"f"}
        assert os.stat(below / "volumes/f/image").st_size == filler.size
        with env.open(env.create_volume("v")) as mounted:
            env.write(mounted, b"works")
        for volume_id in ("f", "v"):
            backend.delete(volume_id)


def test_programs_that_are_missing_or_hang() -> None:
    """FailedPrecondition names program and package; a time-out ends the program."""
    with pytest.raises(FailedPrecondition, match=r"mkfs\.none is missing: install nothing"):
        programs.run_program(("mkfs.none",), "nothing", 1)
    with pytest.raises(DeadlineExceeded, match="sleep"):
        programs.run_program(("sleep", "600"), "coreutils", 0.1)


@pytest.mark.parametrize("setting", [{"colour": 1}, {"freeze-timeout": 0}, {"freeze-timeout": "1"}, {"program-timeout": True}])
def test_settings_are_checked(tmp_path: Path, setting: dict[str, object]) -> None:
    """InvalidArgument names the setting."""
    with pytest.raises(InvalidArgument, match=next(iter(setting))):
        LoopBackend(str(tmp_path / "other"), setting)


def test_an_unknown_option_of_the_file_system(loop: VolumeEnvironment, volume: Volume) -> None:
    """InvalidArgument says what the kernel says, and nothing stays attached."""
    with pytest.raises(InvalidArgument, match="nonsense"):
        loop.backend.mount(volume, ["nonsense=1"], read_only=False)
    wait_until(lambda: not loop_device.find(image(loop)), "a device is left")


def test_a_file_system_that_is_not_the_one_asked_for(loop: VolumeEnvironment, volume: Volume) -> None:
    """FailedPrecondition: never formatted again."""
    with loop.open(volume):
        pass
    subprocess.run(["mkfs.ext4", "-q", "-F", image(loop)], check=True)
    with pytest.raises(FailedPrecondition, match="holds ext4, not xfs"):
        image_filesystem.prepare(os.path.dirname(image(loop)), "xfs", 10)


def image(env: VolumeEnvironment, name: str = "v") -> str:
    return str(env.targets.parent / "root" / "volumes" / name / "image")
