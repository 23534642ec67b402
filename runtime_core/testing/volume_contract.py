"""The contract suite of `trivet.volume`; who writes a back end subclasses it and overrides `make_backend`.

class TestMine(VolumeContract):
    @pytest.fixture
    def make_backend(self, tmp_path):
        return lambda: Mine(str(tmp_path / "mine"), {})

It needs root, and a directory on a file system that the back end works on (volume_places.py makes them).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from runtime_core.errors import FailedPrecondition, InvalidArgument, NotFound, OutOfRange, ResourceExhausted
from runtime_core.interfaces.volume import Access, Source, VolumeBackend
from runtime_core.kernel import loop_device, mounts
from runtime_core.testing.volume_copies import CopyPromises
from runtime_core.testing.volume_environment import (
    VolumeEnvironment,
    bound_loops,
    fill,
    mounted_below,
    require_access,
    require_feature,
    try_write,
    wait_until,
    write_blocks,
)
from runtime_core.testing.volume_faults import FaultPromises

MIB = 1 << 20
HOSTILE_IDS = ["", ".", "..", "../x", "a/b", "a\n", "A", "-a", "a" * 64, "a\0b", "ä"]


class VolumeContract(CopyPromises, FaultPromises):
    #: of volumes that are made here; each fill test writes so much
    size = 64 * MIB

    @pytest.fixture
    def make_backend(self, tmp_path: Path) -> Callable[[], VolumeBackend]:
        """What makes one object more on the same directory, as the next driver would."""
        raise NotImplementedError("override make_backend")

    @pytest.fixture
    def fs_type(self) -> str:
        """The file system to ask for; "" for the first that the back end names."""
        return ""

    @pytest.fixture
    def parameters(self) -> dict[str, str]:
        """Parameters of the StorageClass."""
        return {}

    @pytest.fixture
    def limited(self) -> bool:
        """Whether volumes with these parameters have the limit that their size is."""
        return True

    @pytest.fixture
    def env(
        self, make_backend: Callable[[], VolumeBackend], tmp_path: Path, fs_type: str, parameters: dict[str, str]
    ) -> Iterator[VolumeEnvironment]:
        """Afterwards everything is deleted, and no mount and no loop device may be left."""
        before = mounted_below(tmp_path)
        backend = make_backend()
        targets = tmp_path / "targets"
        targets.mkdir()
        chosen = fs_type or next(iter(backend.features().file_systems), "")
        loops = bound_loops(tmp_path)
        yield VolumeEnvironment(make_backend, backend, targets, chosen, parameters, self.size)
        mounts.unmount_below(str(targets))
        for volume_id in backend.volumes():
            backend.detach(volume_id)
            backend.delete(volume_id)
        for snapshot_id in backend.snapshots():
            backend.delete_snapshot(snapshot_id)
        wait_until(lambda: bound_loops(tmp_path) == loops, "a loop device is left")
        assert mounted_below(tmp_path) == before
        assert backend.volumes() == backend.snapshots() == set()

    @pytest.fixture(params=["mount", "block"])
    def access(self, request: pytest.FixtureRequest, env: VolumeEnvironment) -> Access:
        """Each access type in turn; skipped where the back end lacks it."""
        if request.param not in env.backend.features().access:
            pytest.skip(f"this back end has no {request.param} volumes")
        chosen: Access = request.param
        return chosen

    # ---- what it says of itself

    def test_sizes_are_rounded_up_and_held_against_the_limit(self, env: VolumeEnvironment) -> None:
        """A size is at least what is required, stays as it is when asked again, and is never beyond the limit."""
        smallest = env.backend.round_size(1, 0, env.fs_type)
        for required in (1, smallest - 1, smallest, smallest + 1, 5 * MIB + 1):
            size = env.backend.round_size(required, 0, env.fs_type)
            assert size >= required
            assert env.backend.round_size(size, size, env.fs_type) == size
        with pytest.raises(OutOfRange):
            env.backend.round_size(smallest, smallest - 1, env.fs_type)

    def test_capacity_is_that_of_the_file_system_below(self, env: VolumeEnvironment) -> None:
        """More is not promised than is free there."""
        capacity = env.backend.capacity()
        assert 0 < capacity.available <= capacity.total
        assert 0 < capacity.smallest_volume <= capacity.largest_volume <= capacity.available

    @pytest.mark.parametrize("field", ["parameter", "value", "fs_type", "block fs_type"])
    def test_what_cannot_be_is_refused_by_name(self, env: VolumeEnvironment, field: str) -> None:
        """InvalidArgument, by check and by create, and nothing is made."""
        volume = env.volume("v")
        name, wrong = {
            "parameter": ("parameters.colour", replace(volume, parameters={"colour": "blue"})),
            "value": ("parameters", replace(volume, parameters=dict.fromkeys(env.backend.features().parameters or {"x"}, "?"))),
            "fs_type": ("fs_type", replace(volume, fs_type="vfat")),
            "block fs_type": ("access|fs_type", replace(volume, access="block")),
        }[field]
        for call in (env.backend.check, lambda volume: env.backend.create(volume, None)):
            with pytest.raises(InvalidArgument, match=name):
                call(wrong)
        assert env.backend.volumes() == set()

    @pytest.mark.parametrize("hostile", HOSTILE_IDS)
    def test_hostile_ids_are_refused(self, env: VolumeEnvironment, hostile: str) -> None:
        """InvalidArgument from every call, whatever it is asked for: an id becomes part of a path."""
        volume = replace(env.volume("v"), id=hostile)
        backend = env.backend
        calls: list[Callable[[], object]] = [
            lambda: backend.create(volume, None),
            lambda: backend.delete(hostile),
            lambda: backend.delete_snapshot(hostile),
            lambda: backend.detach(hostile),
            lambda: backend.mount(volume, [], read_only=False),
            lambda: backend.snapshot([(hostile, env.volume("v"))]),
        ]
        for call in calls:
            with pytest.raises(InvalidArgument):
                call()
        assert backend.volumes() == backend.snapshots() == set()

    # ---- create and delete

    def test_create_and_delete_twice(self, env: VolumeEnvironment, access: Access) -> None:
        """The second call changes nothing; what is gone is not listed."""
        volume = env.create_volume("v", access)
        with env.open(volume) as place:
            env.write(place, b"kept")
        env.backend.create(volume, None)
        with env.open(volume) as place:
            assert env.read(place, 4) == b"kept"
        assert env.backend.volumes() == {"v"}
        for _time in range(2):
            env.backend.delete("v")
            assert env.backend.volumes() == set()

    def test_another_object_finds_everything(self, env: VolumeEnvironment, access: Access) -> None:
        """Volumes with their content, as the next driver would."""
        volume = env.create_volume("v", access)
        with env.open(volume) as place:
            env.write(place, b"kept")
        second = replace(env, backend=env.make())
        assert second.backend.volumes() == {"v"}
        with second.open(volume) as place:
            assert env.read(place, 4) == b"kept"

    def test_more_than_there_is(self, env: VolumeEnvironment, access: Access) -> None:
        """ResourceExhausted, and nothing is left."""
        volume = env.volume("v", access, env.backend.capacity().total * 2)
        with pytest.raises(ResourceExhausted):
            env.backend.create(volume, None)
        assert env.backend.volumes() == set()

    # ---- the size is the limit

    def test_a_mounted_volume_holds_its_size_and_not_more(self, env: VolumeEnvironment, limited: bool) -> None:
        """Writing ends with no space: not before what its usage promised, and not past the size."""
        if not limited:
            pytest.skip("these parameters ask for volumes without a limit")
        volume = env.create_volume("v")
        with env.open(volume) as place:
            usage = env.backend.usage(volume, str(place))
            assert 0.6 * volume.size < usage.total <= volume.size
            written, code = fill(place / "file", volume.size + 64 * MIB)
            assert code in (errno.ENOSPC, errno.EDQUOT)
            assert 0.95 * usage.available <= written <= volume.size
            full = env.backend.usage(volume, str(place))
            assert full.available < 0.06 * volume.size and full.used > 0.9 * usage.available

    def test_a_block_volume_has_its_size_exactly(self, env: VolumeEnvironment) -> None:
        """The last byte can be written, the one after it cannot."""
        require_access(env, "block")
        volume = env.create_volume("v", "block", 5 * MIB)
        with env.open(volume) as device:
            descriptor = os.open(device, os.O_RDWR)
            try:
                assert os.lseek(descriptor, 0, os.SEEK_END) == volume.size
                assert os.pwrite(descriptor, b"x", volume.size - 1) == 1
                with pytest.raises(OSError, match="No space left"):
                    os.pwrite(descriptor, b"x", volume.size)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            assert env.backend.usage(volume, str(device)).total == volume.size

    def test_expansion_keeps_the_data(self, env: VolumeEnvironment, access: Access) -> None:
        """Not staged: twice the size at the next mount; once more changes nothing."""
        require_feature(env, "expansion")
        volume = env.create_volume("v", access)
        content = os.urandom(3 * MIB)
        with env.open(volume) as place:
            env.write(place, content)
        larger = replace(volume, size=2 * volume.size)
        for _time in range(2):
            env.backend.expand(larger)
        with env.open(larger) as place:
            assert env.backend.usage(larger, str(place)).total > 1.5 * volume.size
            assert env.read(place, len(content)) == content

    def test_expansion_in_use(self, env: VolumeEnvironment, access: Access) -> None:
        """Seen at once; or refused as FailedPrecondition, told as a problem, and there after the next mount."""
        if env.backend.features().expansion != "online":
            pytest.skip("this back end does not announce online expansion")
        volume = env.create_volume("v", access)
        larger = replace(volume, size=2 * volume.size)
        with env.open(volume) as place:
            env.write(place, b"before")
            needs_growth = env.backend.expand(larger)
            try:
                for _time in range(2 if needs_growth else 0):
                    env.backend.grow(larger, "" if access == "block" else str(place))
            except FailedPrecondition:
                assert "ExpansionPending" in [problem.reason for problem in env.backend.problems(larger, str(place))]
            else:
                assert env.backend.usage(larger, str(place)).total > 1.5 * volume.size
                assert env.backend.problems(larger, str(place)) == []
            if access == "block":
                write_blocks(place, {larger.size - 4096: b"y" * 4096})
        with env.open(larger) as place:
            assert env.read(place, 6) == b"before"
            assert env.backend.usage(larger, str(place)).total > 1.5 * volume.size
            assert env.backend.problems(larger, str(place)) == []

    # ---- the node service

    def test_two_mounts_are_one_file_system(self, env: VolumeEnvironment) -> None:
        """And detach gives back what was attached only when both are gone."""
        volume = env.create_volume("v")
        with env.mounted(volume) as problem:
            with env.mounted(volume, read_only=True) as two:
                (problem / "file").write_text("seen")
                assert (two / "file").read_text() == "seen"
                with pytest.raises(OSError, match="Read-only"):
                    (two / "other").touch()
            (problem / "other").touch()
        for _time in range(2):
            env.backend.detach("v")

    def test_a_read_only_mount_takes_no_writes(self, env: VolumeEnvironment) -> None:
        """Also not when it is mounted so first; afterwards it can be mounted for writing."""
        volume = env.create_volume("v")
        with env.open(volume, read_only=True) as place, pytest.raises(OSError, match="Read-only"):
            (place / "file").touch()
        with env.open(volume) as place:
            (place / "file").touch()

    def test_a_read_only_device_takes_no_writes(self, env: VolumeEnvironment) -> None:
        """And who is attached to that device next can write."""
        require_access(env, "block")
        volume, other = env.create_volume("v", "block"), env.create_volume("w", "block")
        with env.open(volume, read_only=True) as device:
            assert try_write(device) in (errno.EPERM, errno.EROFS, errno.EACCES)
        with env.open(other) as device:
            assert try_write(device) == 0

    @pytest.mark.parametrize(
        "flag", ["bind", "remount", "rbind", "a b", "a\nb", "x,y", "", "=v", "subvol=/", "noatime\0", "loop", "shared", "../x"]
    )
    def test_hostile_mount_flags_are_refused(self, env: VolumeEnvironment, flag: str) -> None:
        """InvalidArgument, and nothing is attached."""
        volume = env.create_volume("v")
        before = bound_loops(env.targets.parent)
        with pytest.raises(InvalidArgument):
            env.backend.mount(volume, [flag], read_only=False)
        wait_until(lambda: bound_loops(env.targets.parent) == before, "a loop device is left")

    def test_mount_flags_are_kept(self, env: VolumeEnvironment) -> None:
        """As the mount table shows them."""
        volume = env.create_volume("v")
        with env.open(volume, flags=["noatime", "nodev", "noexec"]) as place:
            line = next(line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {place} " in line)
        assert {"noatime", "nodev", "noexec", "rw"} <= set(line.split()[5].split(","))

    def test_a_volume_that_is_not_there(self, env: VolumeEnvironment) -> None:
        """NotFound, from the node service too."""
        with pytest.raises(NotFound):
            env.backend.mount(env.volume("v"), [], read_only=False)
        with pytest.raises(NotFound):
            env.backend.create(env.volume("w"), Source("volume", "v", env.volume("v")))
        assert env.backend.volumes() == set()

    def test_a_mounted_volume_is_found_after_a_restart(self, env: VolumeEnvironment, access: Access) -> None:
        """The next driver gives it back."""
        volume = env.create_volume("v", access)
        if access == "block":
            device = env.backend.device(volume, read_only=False)
            assert env.make().device(volume, read_only=False) == device
            env.make().detach("v")
            return
        with env.mounted(volume) as place:
            (place / "file").write_text("seen")
            with replace(env, backend=env.make()).mounted(volume) as again:
                assert (again / "file").read_text() == "seen"
        env.make().detach("v")

    def test_after_a_reboot(self, env: VolumeEnvironment, access: Access) -> None:
        """Mounts and devices are gone, the disk is not: everything is attached again with what was synced."""
        volume = env.create_volume("v", access)
        if access == "block":
            env.write(Path(env.backend.device(volume, read_only=False)), b"synced")
        else:
            with env.mounted(volume) as place:
                env.write(place, b"synced")
        for number in bound_loops(env.targets.parent):
            if "/v/" in loop_device.backing_file(number):
                loop_device.detach(number)
        after = replace(env, backend=env.make())
        after.backend.detach("v")
        with after.open(volume) as place:
            assert env.read(place, 6) == b"synced"

    def test_problems_are_told(self, env: VolumeEnvironment) -> None:
        """None of a sound volume, mounted or not; NotMounted of one that should be."""
        volume = env.create_volume("v")
        assert env.backend.problems(volume, "") == []
        with env.open(volume) as place:
            assert env.backend.problems(volume, str(place)) == []
        assert [problem.reason for problem in env.backend.problems(volume, str(place))] == ["NotMounted"]
        env.backend.delete("v")
        assert [problem.reason for problem in env.backend.problems(volume, "")] == ["ImageMissing"]
