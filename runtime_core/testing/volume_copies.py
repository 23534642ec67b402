"""The contract of `trivet.volume`, of snapshots and clones: one instant, independent, and what differs between two."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace

import pytest

from runtime_core.errors import NotFound, OutOfRange, Unavailable
from runtime_core.interfaces.volume import Access, Extent, Source
from runtime_core.testing.volume_world import (
    World,
    need_access,
    need_feature,
    wait_for,
    wait_until,
    write_blocks,
)
from runtime_core.testing.volume_writers import check_order, count_of, counting, digest, writer

MIB = 1 << 20


class CopyPromises:
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
