"""The contract suite of `trivet.volume`; who writes a back end subclasses it and overrides `make_backend`.

class TestMine(VolumeContract):
    @pytest.fixture
    def make_backend(self, tmp_path):
        return lambda: Mine(str(tmp_path / "mine"), {})

It needs root, and a directory on a file system that the back end works on (volume_places.py makes them).
"""

from __future__ import annotations

import errno
import hashlib
import os
import select
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from runtime_core.errors import FailedPrecondition, InvalidArgument, NotFound, OutOfRange, ResourceExhausted, Unavailable
from runtime_core.interfaces.volume import Access, Extent, Source, Volume, VolumeBackend
from runtime_core.kernel import failpoint, loop_device, mounts, syscalls

MIB, _SYS_RESOURCE = 1 << 20, 1 << 24
HOSTILE_IDS = ["", ".", "..", "../x", "a/b", "a\n", "A", "-a", "a" * 64, "a\0b", "ä"]
KILLS = {
    "create": ["volume.create.directory", "volume.create.filled", "volume.create.named"],
    "restore": ["volume.create.directory", "volume.create.filled", "volume.create.named"],
    "snapshot": ["volume.snapshot.frozen", "volume.snapshot.cloned", "volume.snapshot.committed", "volume.snapshot.published"],
    "delete": ["volume.detached", "volume.delete.hidden"],
    "delete_snapshot": ["volume.delete.hidden"],
    "mount": ["volume.mount.formatted", "volume.attached"],
    "grown mount": ["volume.mount.checked", "volume.attached"],
    "expand": ["volume.expand.sized"],
    "grow": ["volume.grow.device"],
    "detach": ["volume.detached"],
}


@dataclass(frozen=True)
class World:
    """A back end on its directory, and a directory of targets to mount on."""

    make: Callable[[], VolumeBackend]
    backend: VolumeBackend
    targets: Path
    fs_type: str
    parameters: dict[str, str]
    size: int

    def volume(self, name: str, access: Access = "mount", size: int = 0) -> Volume:
        fs_type = self.fs_type if access == "mount" else ""
        rounded = self.backend.round_size(size or self.size, 0, fs_type)
        return Volume(id=name, size=rounded, access=access, fs_type=fs_type, parameters=self.parameters)

    def made(self, name: str, access: Access = "mount", size: int = 0) -> Volume:
        volume = self.volume(name, access, size)
        self.backend.create(volume, None)
        return volume

    @contextmanager
    def open(self, volume: Volume, *, read_only: bool = False, flags: Sequence[str] = ()) -> Iterator[Path]:
        """A mounted volume's directory, or a block volume's device; given back at the end."""
        if volume.access == "block":
            yield Path(self.backend.device(volume, read_only=read_only))
            self.backend.detach(volume.id)
            return
        with self.mounted(volume, read_only=read_only, flags=flags) as target:
            yield target
        self.backend.detach(volume.id)

    @contextmanager
    def mounted(self, volume: Volume, *, read_only: bool = False, flags: Sequence[str] = ()) -> Iterator[Path]:
        target = self.targets / f"{volume.id}-{len(os.listdir(self.targets))}"
        target.mkdir(parents=True)
        attach(self.backend.mount(volume, flags, read_only=read_only), target)
        try:
            yield target
        finally:
            syscalls.umount2(str(target))

    def write(self, place: Path, content: bytes) -> None:
        """Into a file of a mounted volume, or to the begin of a device; durable."""
        descriptor = os.open(place / "content" if place.is_dir() else place, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.pwrite(descriptor, content, 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def read(self, place: Path, length: int) -> bytes:
        with open(place / "content" if place.is_dir() else place, "rb") as file:
            return file.read(length)


class VolumeContract:
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

    # ---- snapshots and clones

    @pytest.mark.parametrize("kind", ["snapshot", "volume"])
    def test_a_copy_is_independent(self, world: World, access: Access, kind: str) -> None:
        """Made while the source is in use: it holds what the source held, neither sees what the other writes."""
        need_feature(world, "snapshots" if kind == "snapshot" else "clones")
        volume = world.made("v", access)
        copy = world.volume("c", access, 2 * volume.size)
        content = os.urandom(2 * MIB)
        with world.open(volume) as place:
            world.write(place, content)
            if kind == "snapshot":
                world.backend.snapshot([("s", volume)])
                world.write(place, b"later")
                world.backend.snapshot([("s", volume)])  # again: nothing happens
            source = Source("volume", "v", volume) if kind == "volume" else Source("snapshot", "s", volume)
            world.backend.create(copy, source)
            world.write(place, b"later")
            with world.open(copy) as other:
                assert digest(world.read(other, len(content))) == digest(content)
                assert world.backend.usage(copy, str(other)).total > 1.5 * volume.size
                world.write(other, b"other")
            assert world.read(place, 5) == b"later"

    def test_a_snapshot_outlives_its_volume(self, world: World, access: Access) -> None:
        """And can be restored twice, until it is deleted."""
        need_feature(world, "snapshots")
        volume = world.made("v", access)
        with world.open(volume) as place:
            world.write(place, b"kept")
        world.backend.snapshot([("s", volume)])
        world.backend.delete("v")
        assert (world.backend.volumes(), world.backend.snapshots()) == (set(), {"s"})
        for name in "cd":
            copy = replace(volume, id=name)
            world.backend.create(copy, Source("snapshot", "s", volume))
            with world.open(copy) as place:
                assert world.read(place, 4) == b"kept"
        for _time in range(2):
            world.backend.delete_snapshot("s")
            assert world.backend.snapshots() == set()

    def test_a_source_larger_than_the_volume(self, world: World, access: Access) -> None:
        """OutOfRange, and nothing is left."""
        need_feature(world, "clones")
        small = world.volume("c", access)
        volume = world.made("v", access, 2 * small.size)
        with pytest.raises(OutOfRange):
            world.backend.create(small, Source("volume", "v", volume))
        assert world.backend.volumes() == {"v"}

    @pytest.mark.parametrize("members", [1, 2])
    def test_a_snapshot_of_volumes_in_use_is_one_instant(self, world: World, members: int) -> None:
        """Of files written and synced one after the other, in one volume or two: whoever is there, those before it are
        there, whole. Or it is Unavailable and nothing is left."""
        need_feature(world, "groups" if members == 2 else "snapshots")
        volumes = [world.made(name) for name in "vw"[:members]]
        group = list(zip("st", volumes, strict=False))
        with ExitStack() as stack:
            places = [stack.enter_context(world.open(volume)) for volume in volumes]
            with writer(places[0], places[-1]):
                wait_for(places[-1] / "second-20")
                try:
                    world.backend.snapshot(group)
                except Unavailable:
                    assert world.backend.snapshots() == set()
            if not world.backend.snapshots():
                world.backend.snapshot(group)  # nobody writes: this one can
            assert world.backend.snapshots() == {one for one, _volume in group}
            copies = [replace(volume, id=f"c{volume.id}") for volume in volumes]
            for copy, (snapshot_id, volume) in zip(copies, group, strict=True):
                world.backend.create(copy, Source("snapshot", snapshot_id, volume))
            places = [stack.enter_context(world.open(copy)) for copy in copies]
            assert check_order(places[0], places[-1]) >= 20

    def test_a_snapshot_of_devices_in_use_is_one_instant(self, world: World) -> None:
        """Of numbers written to the first device, then to the second: the second never is ahead. Or it is Unavailable."""
        need_feature(world, "groups")
        need_access(world, "block")
        volumes = [world.made(name, "block", 8 * MIB) for name in "vw"]
        group = list(zip("st", volumes, strict=True))
        with world.open(volumes[0]) as one, world.open(volumes[1]) as two:
            with counting(one, two):
                wait_until(lambda: count_of(two) > 20, "nobody writes")
                try:
                    world.backend.snapshot(group)
                except Unavailable:
                    assert world.backend.snapshots() == set()
            if not world.backend.snapshots():
                world.backend.snapshot(group)
        counts = []
        for snapshot_id, volume in group:
            copy = replace(volume, id=f"c{volume.id}")
            world.backend.create(copy, Source("snapshot", snapshot_id, volume))
            with world.open(copy) as device:
                counts.append(count_of(device))
        assert counts[0] - 1 <= counts[1] <= counts[0]
        assert counts[1] > 20

    def test_a_group_of_which_one_is_missing(self, world: World) -> None:
        """None is made."""
        need_feature(world, "groups")
        with pytest.raises(NotFound):
            world.backend.snapshot([("s", world.made("v")), ("t", world.volume("w"))])
        assert world.backend.snapshots() == set()

    def test_blocks_of_snapshots(self, world: World) -> None:
        """Allocated blocks hold all data; changed ones are those that were written between, to the byte."""
        need_feature(world, "metadata")
        need_access(world, "block")
        volume = world.made("v", "block", 32 * MIB)
        with world.open(volume) as device:
            write_blocks(device, {0: b"a" * MIB, 8 * MIB: b"b" * MIB})
            world.backend.snapshot([("s", volume)])
            write_blocks(device, {8 * MIB + 8192: b"c" * 4096, 20 * MIB: b"d" * 8192})
            world.backend.snapshot([("t", volume)])
        backend = world.backend
        assert list(backend.allocated("s", 0)) == [Extent(0, MIB), Extent(8 * MIB, MIB)]
        assert list(backend.allocated("t", 8 * MIB + 4096)) == [
            Extent(8 * MIB + 4096, MIB - 4096),
            Extent(20 * MIB, 8192),
        ]
        assert list(backend.changed("s", "t", 0)) == [Extent(8 * MIB + 8192, 4096), Extent(20 * MIB, 8192)]
        assert list(backend.changed("s", "t", 9 * MIB)) == [Extent(20 * MIB, 8192)]
        assert list(backend.changed("s", "s", 0)) == []
        with pytest.raises(NotFound):
            list(backend.allocated("nothing", 0))

    # ---- killed half-way

    @pytest.mark.parametrize(("act", "point"), [(act, point) for act, points in KILLS.items() for point in points])
    def test_killed_at(self, world: World, access: Access, act: str, point: str) -> None:
        """The next driver does it again, and it is as if nothing had happened."""
        volume = world.made("v", access)
        with world.open(volume) as place:
            world.write(place, b"before")
        getattr(self, f"_killed_in_{act.replace(' ', '_')}")(world, volume, point)

    def _killed_in_create(self, world: World, volume: Volume, point: str) -> None:
        fresh = replace(volume, id="n")
        dies(world, point, lambda backend: backend.create(fresh, None))
        after = replace(world, backend=world.make())
        after.backend.create(fresh, None)
        assert after.backend.volumes() == {"v", "n"}
        with after.open(fresh) as place:
            world.write(place, b"works")

    def _killed_in_restore(self, world: World, volume: Volume, point: str) -> None:
        need_feature(world, "clones")
        copy, source = replace(volume, id="n"), Source("volume", "v", volume)
        dies(world, point, lambda backend: backend.create(copy, source))
        after = replace(world, backend=world.make())
        after.backend.create(copy, source)
        with after.open(copy) as place:
            assert world.read(place, 6) == b"before"

    def _killed_in_snapshot(self, world: World, volume: Volume, point: str) -> None:
        """With the volume mounted: it must not stay frozen."""
        need_feature(world, "groups")
        other = world.made("w", volume.access)
        group = [("s", volume), ("t", other)]
        with world.open(volume) as place:
            dies(world, point, lambda backend: backend.snapshot(group))
            after = replace(world, backend=world.make())
            assert after.backend.snapshots() in (set(), {"s", "t"})
            within(10, lambda: world.write(place, b"thawed"))
            after.backend.snapshot(group)
        assert after.backend.snapshots() == {"s", "t"}
        copy = replace(volume, id="n")
        after.backend.create(copy, Source("snapshot", "s", volume))
        with after.open(copy) as place:
            assert world.read(place, 6) in (b"before", b"thawed")

    def _killed_in_delete(self, world: World, volume: Volume, point: str) -> None:
        if volume.access == "block":
            world.backend.device(volume, read_only=False)  # left over: delete gives it back
        dies(world, point, lambda backend: backend.delete("v"))
        after = world.make()
        after.delete("v")
        assert after.volumes() == set()

    def _killed_in_delete_snapshot(self, world: World, volume: Volume, point: str) -> None:
        need_feature(world, "snapshots")
        world.backend.snapshot([("s", volume)])
        dies(world, point, lambda backend: backend.delete_snapshot("s"))
        after = world.make()
        after.delete_snapshot("s")
        assert after.snapshots() == set()

    def _killed_in_mount(self, world: World, volume: Volume, point: str) -> None:
        fresh = world.made("n", volume.access)
        dies(world, point, lambda backend: opened(backend, fresh))
        with replace(world, backend=world.make()).open(fresh) as place:
            world.write(place, b"works")

    def _killed_in_grown_mount(self, world: World, volume: Volume, point: str) -> None:
        need_feature(world, "expansion")
        larger = replace(volume, size=2 * volume.size)
        world.backend.expand(larger)
        dies(world, point, lambda backend: opened(backend, larger))
        after = replace(world, backend=world.make())
        with after.open(larger) as place:
            assert world.read(place, 6) == b"before"
            assert after.backend.usage(larger, str(place)).total > 1.5 * volume.size

    def _killed_in_expand(self, world: World, volume: Volume, point: str) -> None:
        need_feature(world, "expansion")
        larger = replace(volume, size=2 * volume.size)
        dies(world, point, lambda backend: backend.expand(larger))
        after = replace(world, backend=world.make())
        after.backend.expand(larger)
        with after.open(larger) as place:
            assert world.read(place, 6) == b"before"
            assert after.backend.usage(larger, str(place)).total > 1.5 * volume.size

    def _killed_in_grow(self, world: World, volume: Volume, point: str) -> None:
        if world.backend.features().expansion != "online":
            pytest.skip("this back end does not announce online expansion")
        larger = replace(volume, size=2 * volume.size)
        with world.open(volume) as place:
            world.backend.expand(larger)
            mounted = "" if volume.access == "block" else str(place)
            dies(world, point, lambda backend: grown(backend, larger, mounted))
            grown(world.make(), larger, mounted)
        with replace(world, backend=world.make()).open(larger) as place:
            assert world.read(place, 6) == b"before"
            assert world.backend.usage(larger, str(place)).total > 1.5 * volume.size

    def _killed_in_detach(self, world: World, volume: Volume, point: str) -> None:
        os.close(opened(world.backend, volume))
        dies(world, point, lambda backend: backend.detach("v"))
        world.make().detach("v")
        with world.open(volume) as place:
            assert world.read(place, 6) == b"before"


# ---- what tests do


def need_access(world: World, access: str) -> None:
    if access not in world.backend.features().access:
        pytest.skip(f"this back end has no {access} volumes")


def need_feature(world: World, feature: str) -> None:
    if not getattr(world.backend.features(), feature):
        pytest.skip(f"this back end does not announce {feature}")


def attach(mount: int, target: Path) -> None:
    place = os.open(target, os.O_PATH)
    try:
        mounts.attach(mount, place)
    finally:
        os.close(place)
        os.close(mount)


def mounted_below(directory: Path) -> list[str]:
    return [point for point in mounts.mounted() if point.startswith(f"{directory}/")]


def bound_loops(below: Path) -> set[int]:
    """Loop devices over what lies below this directory; others have theirs."""
    numbers = [int(name[4:]) for name in os.listdir("/sys/block") if name.startswith("loop")]
    return {number for number in numbers if str(below) in loop_device.backing_file(number)}


def opened(backend: VolumeBackend, volume: Volume) -> int:
    if volume.access == "block":
        return os.open(backend.device(volume, read_only=False), os.O_RDONLY)
    return backend.mount(volume, [], read_only=False)


def grown(backend: VolumeBackend, volume: Volume, mounted: str) -> None:
    try:
        backend.grow(volume, mounted)
    except FailedPrecondition:
        pass  # at the next mount, then


def dies(world: World, point: str, act: Callable[[VolumeBackend], object]) -> None:
    """Another driver is killed at `point` while it does this; one that does not pass there ends it."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            failpoint._ARMED[point] = ["kill", 1]
            act(world.make())
            status = 0
        finally:
            os._exit(status)
    _pid, result = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(result) in (0, -signal.SIGKILL)


def within(seconds: int, act: Callable[[], object]) -> None:
    """In a process of its own: one that writes to a frozen file system cannot be told to stop."""
    child = os.fork()
    if child == 0:
        act()
        os._exit(0)
    pidfd = os.pidfd_open(child)
    ready, _w, _x = select.select([pidfd], [], [], seconds)
    os.close(pidfd)
    assert ready, "still not done: the file system is frozen"
    assert os.waitpid(child, 0)[1] == 0


@contextmanager
def writer(*places: Path) -> Iterator[None]:
    """Somebody who writes first-N to the first place, then second-N to the second, each synced, on and on."""
    child = os.fork()
    if child == 0:
        try:
            for number in range(100_000):
                for name, place in zip(("first", "second"), places, strict=True):
                    durable(place / f"{name}-{number}", content_of(name, number))
                if number > 40:  # the last ones only, so that the volume does not fill
                    for name, place in zip(("first", "second"), places, strict=True):
                        (place / f"{name}-{number - 20}").unlink()
        finally:
            os._exit(1)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@contextmanager
def counting(*devices: Path) -> Iterator[None]:
    """Somebody who writes 1, 2, 3 … to the first device, each then to the second, synced."""
    child = os.fork()
    if child == 0:
        try:
            opened = [os.open(device, os.O_WRONLY | os.O_SYNC) for device in devices]
            for number in range(1, 1_000_000):
                for descriptor in opened:
                    os.pwrite(descriptor, number.to_bytes(8, "big") * 512, 0)
        finally:
            os._exit(1)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def count_of(device: Path) -> int:
    with open(device, "rb") as file:
        return int.from_bytes(file.read(8), "big")


def durable(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.write(descriptor, content)
    os.fsync(descriptor)
    os.close(descriptor)


def content_of(name: str, number: int) -> bytes:
    return hashlib.sha256(f"{name} {number}".encode()).digest() * 200


def wait_for(path: Path) -> None:
    wait_until(path.exists, f"{path} does not come")


def wait_until(done: Callable[[], bool], otherwise: str) -> None:
    """A loop device goes with its last user, which may be udev."""
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.005)


def check_order(one: Path, two: Path) -> int:
    """Every second-N has its first-N, and both are whole; the highest N."""
    numbers = {int(path.name.split("-")[1]) for path in two.iterdir() if path.name.startswith("second-")}
    firsts = {int(path.name.split("-")[1]) for path in one.iterdir() if path.name.startswith("first-")}
    newest = max(numbers)
    assert newest <= max(firsts)
    assert newest in firsts
    for number in numbers & firsts:
        # one that was removed at that moment may be gone from one of the two, but never half
        assert (one / f"first-{number}").read_bytes() == content_of("first", number)
        assert (two / f"second-{number}").read_bytes() == content_of("second", number)
    return newest


def fill(path: Path, most: int) -> tuple[int, int]:
    """(bytes that could be written and synced, errno that ended it), by one without CAP_SYS_RESOURCE, as containers are:
    ext4 lets who has it past a quota."""
    reader, told = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            effective, permitted, inheritable = syscalls.capget()
            syscalls.capset(effective & ~_SYS_RESOURCE, permitted & ~_SYS_RESOURCE, inheritable)
            os.write(told, "{} {}".format(*_fill(path, most)).encode())
        finally:
            os._exit(0)
    os.close(told)
    with os.fdopen(reader) as file:
        written, code = map(int, file.read().split())
    os.waitpid(child, 0)
    return written, code


def _fill(path: Path, most: int) -> tuple[int, int]:
    written, chunk = 0, os.urandom(MIB)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        while written < most:
            written += os.write(descriptor, chunk)
            os.fsync(descriptor)  # btrfs and delayed allocation say it late
    except OSError as error:
        return written, error.errno or 0
    finally:
        os.close(descriptor)
    return written, 0


def try_write(device: Path) -> int:
    """0, or the errno with which a write that is synced fails."""
    try:
        descriptor = os.open(device, os.O_RDWR)
        try:
            os.pwrite(descriptor, b"x" * 4096, 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        return error.errno or 0
    return 0


def write_blocks(device: Path, blocks: dict[int, bytes]) -> None:
    descriptor = os.open(device, os.O_RDWR)
    try:
        for offset, content in blocks.items():
            os.pwrite(descriptor, content, offset)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
