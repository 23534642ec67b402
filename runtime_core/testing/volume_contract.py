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
from runtime_core.testing.volume_faults import FaultPromises
from runtime_core.testing.volume_world import (
    World,
    bound_loops,
    fill,
    mounted_below,
    need_access,
    need_feature,
    try_write,
    wait_until,
    write_blocks,
)

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
        return {}

    @pytest.fixture
    def limited(self) -> bool:
        """Whether volumes with these parameters have the limit that their size is."""
        return True

    @pytest.fixture
    def world(
        self, make_backend: Callable[[], VolumeBackend], tmp_path: Path, fs_type: str, parameters: dict[str, str]
    ) -> Iterator[World]:
        """Afterwards everything is deleted, and no mount and no loop device may be left."""
        before = mounted_below(tmp_path)
        backend = make_backend()
        targets = tmp_path / "targets"
        targets.mkdir()
        chosen = fs_type or next(iter(backend.features().file_systems), "")
        loops = bound_loops(tmp_path)
        yield World(make_backend, backend, targets, chosen, parameters, self.size)
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
    def access(self, request: pytest.FixtureRequest, world: World) -> Access:
        if request.param not in world.backend.features().access:
            pytest.skip(f"this back end has no {request.param} volumes")
        chosen: Access = request.param
        return chosen

    # ---- what it says of itself

    def test_sizes_are_rounded_up_and_held_against_the_limit(self, world: World) -> None:
        """A size is at least what is required, stays as it is when asked again, and is never beyond the limit."""
        smallest = world.backend.round_size(1, 0, world.fs_type)
        for required in (1, smallest - 1, smallest, smallest + 1, 5 * MIB + 1):
            size = world.backend.round_size(required, 0, world.fs_type)
            assert size >= required
            assert world.backend.round_size(size, size, world.fs_type) == size
        with pytest.raises(OutOfRange):
            world.backend.round_size(smallest, smallest - 1, world.fs_type)

    def test_capacity_is_that_of_the_file_system_below(self, world: World) -> None:
        """More is not promised than is free there."""
        capacity = world.backend.capacity()
        assert 0 < capacity.available <= capacity.total
        assert 0 < capacity.smallest_volume <= capacity.largest_volume <= capacity.available

    @pytest.mark.parametrize("field", ["parameter", "value", "fs_type", "block fs_type"])
    def test_what_cannot_be_is_refused_by_name(self, world: World, field: str) -> None:
        """InvalidArgument, by check and by create, and nothing is made."""
        volume = world.volume("v")
        name, wrong = {
            "parameter": ("parameters.colour", replace(volume, parameters={"colour": "blue"})),
            "value": ("parameters", replace(volume, parameters=dict.fromkeys(world.backend.features().parameters or {"x"}, "?"))),
            "fs_type": ("fs_type", replace(volume, fs_type="vfat")),
            "block fs_type": ("access|fs_type", replace(volume, access="block")),
        }[field]
        for call in (world.backend.check, lambda volume: world.backend.create(volume, None)):
            with pytest.raises(InvalidArgument, match=name):
                call(wrong)
        assert world.backend.volumes() == set()

    @pytest.mark.parametrize("hostile", HOSTILE_IDS)
    def test_hostile_ids_are_refused(self, world: World, hostile: str) -> None:
        """InvalidArgument from every call, whatever it is asked for: an id becomes part of a path."""
        volume = replace(world.volume("v"), id=hostile)
        backend = world.backend
        calls: list[Callable[[], object]] = [
            lambda: backend.create(volume, None),
            lambda: backend.delete(hostile),
            lambda: backend.delete_snapshot(hostile),
            lambda: backend.detach(hostile),
            lambda: backend.mount(volume, [], read_only=False),
            lambda: backend.snapshot([(hostile, world.volume("v"))]),
        ]
        for call in calls:
            with pytest.raises(InvalidArgument):
                call()
        assert backend.volumes() == backend.snapshots() == set()

    # ---- create and delete

    def test_create_and_delete_twice(self, world: World, access: Access) -> None:
        """The second call changes nothing; what is gone is not listed."""
        volume = world.made("v", access)
        with world.open(volume) as place:
            world.write(place, b"kept")
        world.backend.create(volume, None)
        with world.open(volume) as place:
            assert world.read(place, 4) == b"kept"
        assert world.backend.volumes() == {"v"}
        for _time in range(2):
            world.backend.delete("v")
            assert world.backend.volumes() == set()

    def test_another_object_finds_everything(self, world: World, access: Access) -> None:
        """Volumes with their content, as the next driver would."""
        volume = world.made("v", access)
        with world.open(volume) as place:
            world.write(place, b"kept")
        second = replace(world, backend=world.make())
        assert second.backend.volumes() == {"v"}
        with second.open(volume) as place:
            assert world.read(place, 4) == b"kept"

    def test_more_than_there_is(self, world: World, access: Access) -> None:
        """ResourceExhausted, and nothing is left."""
        volume = world.volume("v", access, world.backend.capacity().total * 2)
        with pytest.raises(ResourceExhausted):
            world.backend.create(volume, None)
        assert world.backend.volumes() == set()

    # ---- the size is the limit

    def test_a_mounted_volume_holds_its_size_and_not_more(self, world: World, limited: bool) -> None:
        """Writing ends with no space: not before what its usage promised, and not past the size."""
        if not limited:
            pytest.skip("these parameters ask for volumes without a limit")
        volume = world.made("v")
        with world.open(volume) as place:
            usage = world.backend.usage(volume, str(place))
            assert 0.6 * volume.size < usage.total <= volume.size
            written, code = fill(place / "file", volume.size + 64 * MIB)
            assert code in (errno.ENOSPC, errno.EDQUOT)
            assert 0.95 * usage.available <= written <= volume.size
            full = world.backend.usage(volume, str(place))
            assert full.available < 0.06 * volume.size and full.used > 0.9 * usage.available

    def test_a_block_volume_has_its_size_exactly(self, world: World) -> None:
        """The last byte can be written, the one after it cannot."""
        need_access(world, "block")
        volume = world.made("v", "block", 5 * MIB)
        with world.open(volume) as device:
            descriptor = os.open(device, os.O_RDWR)
            try:
                assert os.lseek(descriptor, 0, os.SEEK_END) == volume.size
                assert os.pwrite(descriptor, b"x", volume.size - 1) == 1
                with pytest.raises(OSError, match="No space left"):
                    os.pwrite(descriptor, b"x", volume.size)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            assert world.backend.usage(volume, str(device)).total == volume.size

    def test_expansion_keeps_the_data(self, world: World, access: Access) -> None:
        """Not staged: twice the size at the next mount; once more changes nothing."""
        need_feature(world, "expansion")
        volume = world.made("v", access)
        content = os.urandom(3 * MIB)
        with world.open(volume) as place:
            world.write(place, content)
        larger = replace(volume, size=2 * volume.size)
        for _time in range(2):
            world.backend.expand(larger)
        with world.open(larger) as place:
            assert world.backend.usage(larger, str(place)).total > 1.5 * volume.size
            assert world.read(place, len(content)) == content

    def test_expansion_in_use(self, world: World, access: Access) -> None:
        """Seen at once; or refused as FailedPrecondition, told as a problem, and there after the next mount."""
        if world.backend.features().expansion != "online":
            pytest.skip("this back end does not announce online expansion")
        volume = world.made("v", access)
        larger = replace(volume, size=2 * volume.size)
        with world.open(volume) as place:
            world.write(place, b"before")
            needs_growth = world.backend.expand(larger)
            try:
                for _time in range(2 if needs_growth else 0):
                    world.backend.grow(larger, "" if access == "block" else str(place))
            except FailedPrecondition:
                assert "ExpansionPending" in [one.reason for one in world.backend.problems(larger, str(place))]
            else:
                assert world.backend.usage(larger, str(place)).total > 1.5 * volume.size
                assert world.backend.problems(larger, str(place)) == []
            if access == "block":
                write_blocks(place, {larger.size - 4096: b"y" * 4096})
        with world.open(larger) as place:
            assert world.read(place, 6) == b"before"
            assert world.backend.usage(larger, str(place)).total > 1.5 * volume.size
            assert world.backend.problems(larger, str(place)) == []

    # ---- the node's half

    def test_two_mounts_are_one_file_system(self, world: World) -> None:
        """And detach gives back what was attached only when both are gone."""
        volume = world.made("v")
        with world.mounted(volume) as one:
            with world.mounted(volume, read_only=True) as two:
                (one / "file").write_text("seen")
                assert (two / "file").read_text() == "seen"
                with pytest.raises(OSError, match="Read-only"):
                    (two / "other").touch()
            (one / "other").touch()
        for _time in range(2):
            world.backend.detach("v")

    def test_a_read_only_mount_takes_no_writes(self, world: World) -> None:
        """Also not when it is mounted so first; afterwards it can be mounted for writing."""
        volume = world.made("v")
        with world.open(volume, read_only=True) as place, pytest.raises(OSError, match="Read-only"):
            (place / "file").touch()
        with world.open(volume) as place:
            (place / "file").touch()

    def test_a_read_only_device_takes_no_writes(self, world: World) -> None:
        """And who is attached to that device next can write."""
        need_access(world, "block")
        volume, other = world.made("v", "block"), world.made("w", "block")
        with world.open(volume, read_only=True) as device:
            assert try_write(device) in (errno.EPERM, errno.EROFS, errno.EACCES)
        with world.open(other) as device:
            assert try_write(device) == 0

    @pytest.mark.parametrize(
        "flag", ["bind", "remount", "rbind", "a b", "a\nb", "x,y", "", "=v", "subvol=/", "noatime\0", "loop", "shared", "../x"]
    )
    def test_hostile_mount_flags_are_refused(self, world: World, flag: str) -> None:
        """InvalidArgument, and nothing is attached."""
        volume = world.made("v")
        before = bound_loops(world.targets.parent)
        with pytest.raises(InvalidArgument):
            world.backend.mount(volume, [flag], read_only=False)
        wait_until(lambda: bound_loops(world.targets.parent) == before, "a loop device is left")

    def test_mount_flags_are_kept(self, world: World) -> None:
        """As the mount table shows them."""
        volume = world.made("v")
        with world.open(volume, flags=["noatime", "nodev", "noexec"]) as place:
            line = next(line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {place} " in line)
        assert {"noatime", "nodev", "noexec", "rw"} <= set(line.split()[5].split(","))

    def test_a_volume_that_is_not_there(self, world: World) -> None:
        """NotFound, from the node's half too."""
        with pytest.raises(NotFound):
            world.backend.mount(world.volume("v"), [], read_only=False)
        with pytest.raises(NotFound):
            world.backend.create(world.volume("w"), Source("volume", "v", world.volume("v")))
        assert world.backend.volumes() == set()

    def test_a_mounted_volume_is_found_after_a_restart(self, world: World, access: Access) -> None:
        """The next driver gives it back."""
        volume = world.made("v", access)
        if access == "block":
            device = world.backend.device(volume, read_only=False)
            assert world.make().device(volume, read_only=False) == device
            world.make().detach("v")
            return
        with world.mounted(volume) as place:
            (place / "file").write_text("seen")
            with replace(world, backend=world.make()).mounted(volume) as again:
                assert (again / "file").read_text() == "seen"
        world.make().detach("v")

    def test_after_a_reboot(self, world: World, access: Access) -> None:
        """Mounts and devices are gone, the disk is not: everything is attached again with what was synced."""
        volume = world.made("v", access)
        if access == "block":
            world.write(Path(world.backend.device(volume, read_only=False)), b"synced")
        else:
            with world.mounted(volume) as place:
                world.write(place, b"synced")
        for number in bound_loops(world.targets.parent):
            if "/v/" in loop_device.backing_file(number):
                loop_device.detach(number)
        after = replace(world, backend=world.make())
        after.backend.detach("v")
        with after.open(volume) as place:
            assert world.read(place, 6) == b"synced"

    def test_problems_are_told(self, world: World) -> None:
        """None of a sound volume, mounted or not; NotMounted of one that should be."""
        volume = world.made("v")
        assert world.backend.problems(volume, "") == []
        with world.open(volume) as place:
            assert world.backend.problems(volume, str(place)) == []
        assert [one.reason for one in world.backend.problems(volume, str(place))] == ["NotMounted"]
        world.backend.delete("v")
        assert [one.reason for one in world.backend.problems(volume, "")] == ["ImageMissing"]
