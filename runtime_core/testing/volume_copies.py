"""The contract of `trivet.volume`, of snapshots and clones: one instant, independent, and what differs between two."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace

import pytest

from runtime_core.errors import NotFound, OutOfRange, Unavailable
from runtime_core.interfaces.volume import Access, Extent, Source
from runtime_core.testing.volume_environment import (
    VolumeEnvironment,
    require_access,
    require_feature,
    wait_for,
    wait_until,
    write_blocks,
)
from runtime_core.testing.volume_writers import check_order, count_of, count_on_devices, digest, writer

MIB = 1 << 20


class CopyPromises:
    @pytest.mark.parametrize("kind", ["snapshot", "volume"])
    def test_a_copy_is_independent(self, env: VolumeEnvironment, access: Access, kind: str) -> None:
        """Made while the source is in use: it holds what the source held, neither sees what the other writes."""
        require_feature(env, "snapshots" if kind == "snapshot" else "clones")
        volume = env.create_volume("v", access)
        copy = env.volume("c", access, 2 * volume.size)
        content = os.urandom(2 * MIB)
        with env.open(volume) as place:
            env.write(place, content)
            if kind == "snapshot":
                env.backend.snapshot([("s", volume)])
                env.write(place, b"later")
                env.backend.snapshot([("s", volume)])  # again: nothing happens
            source = Source("volume", "v", volume) if kind == "volume" else Source("snapshot", "s", volume)
            env.backend.create(copy, source)
            env.write(place, b"later")
            with env.open(copy) as other:
                assert digest(env.read(other, len(content))) == digest(content)
                assert env.backend.usage(copy, str(other)).total > 1.5 * volume.size
                env.write(other, b"other")
            assert env.read(place, 5) == b"later"

    def test_a_snapshot_outlives_its_volume(self, env: VolumeEnvironment, access: Access) -> None:
        """And can be restored twice, until it is deleted."""
        require_feature(env, "snapshots")
        volume = env.create_volume("v", access)
        with env.open(volume) as place:
            env.write(place, b"kept")
        env.backend.snapshot([("s", volume)])
        env.backend.delete("v")
        assert (env.backend.volumes(), env.backend.snapshots()) == (set(), {"s"})
        for name in "cd":
            copy = replace(volume, id=name)
            env.backend.create(copy, Source("snapshot", "s", volume))
            with env.open(copy) as place:
                assert env.read(place, 4) == b"kept"
        for _time in range(2):
            env.backend.delete_snapshot("s")
            assert env.backend.snapshots() == set()

    def test_a_source_larger_than_the_volume(self, env: VolumeEnvironment, access: Access) -> None:
        """OutOfRange, and nothing is left."""
        require_feature(env, "clones")
        small = env.volume("c", access)
        volume = env.create_volume("v", access, 2 * small.size)
        with pytest.raises(OutOfRange):
            env.backend.create(small, Source("volume", "v", volume))
        assert env.backend.volumes() == {"v"}

    @pytest.mark.parametrize("members", [1, 2])
    def test_a_snapshot_of_volumes_in_use_is_one_instant(self, env: VolumeEnvironment, members: int) -> None:
        """Of files written and synced one after the other, in one volume or two: whoever is there, those before it are
        there, whole. Or it is Unavailable and nothing is left."""
        require_feature(env, "groups" if members == 2 else "snapshots")
        volumes = [env.create_volume(name) for name in "vw"[:members]]
        group = list(zip("st", volumes, strict=False))
        with ExitStack() as stack:
            places = [stack.enter_context(env.open(volume)) for volume in volumes]
            with writer(places[0], places[-1]):
                wait_for(places[-1] / "second-20")
                try:
                    env.backend.snapshot(group)
                except Unavailable:
                    assert env.backend.snapshots() == set()
            if not env.backend.snapshots():
                env.backend.snapshot(group)  # nobody writes: this one can
            assert env.backend.snapshots() == {one for one, _volume in group}
            copies = [replace(volume, id=f"c{volume.id}") for volume in volumes]
            for copy, (snapshot_id, volume) in zip(copies, group, strict=True):
                env.backend.create(copy, Source("snapshot", snapshot_id, volume))
            places = [stack.enter_context(env.open(copy)) for copy in copies]
            assert check_order(places[0], places[-1]) >= 20

    def test_a_snapshot_of_devices_in_use_is_one_instant(self, env: VolumeEnvironment) -> None:
        """Of numbers written to the first device, then to the second: the second never is ahead. Or it is Unavailable."""
        require_feature(env, "groups")
        require_access(env, "block")
        volumes = [env.create_volume(name, "block", 8 * MIB) for name in "vw"]
        group = list(zip("st", volumes, strict=True))
        with env.open(volumes[0]) as one, env.open(volumes[1]) as two:
            with count_on_devices(one, two):
                wait_until(lambda: count_of(two) > 20, "nobody writes")
                try:
                    env.backend.snapshot(group)
                except Unavailable:
                    assert env.backend.snapshots() == set()
            if not env.backend.snapshots():
                env.backend.snapshot(group)
        counts = []
        for snapshot_id, volume in group:
            copy = replace(volume, id=f"c{volume.id}")
            env.backend.create(copy, Source("snapshot", snapshot_id, volume))
            with env.open(copy) as device:
                counts.append(count_of(device))
        assert counts[0] - 1 <= counts[1] <= counts[0]
        assert counts[1] > 20

    def test_a_group_of_which_one_is_missing(self, env: VolumeEnvironment) -> None:
        """None is made."""
        require_feature(env, "groups")
        with pytest.raises(NotFound):
            env.backend.snapshot([("s", env.create_volume("v")), ("t", env.volume("w"))])
        assert env.backend.snapshots() == set()

    def test_blocks_of_snapshots(self, env: VolumeEnvironment) -> None:
        """Allocated blocks hold all data; changed ones are those that were written between, to the byte."""
        require_feature(env, "metadata")
        require_access(env, "block")
        volume = env.create_volume("v", "block", 32 * MIB)
        with env.open(volume) as device:
            write_blocks(device, {0: b"a" * MIB, 8 * MIB: b"b" * MIB})
            env.backend.snapshot([("s", volume)])
            write_blocks(device, {8 * MIB + 8192: b"c" * 4096, 20 * MIB: b"d" * 8192})
            env.backend.snapshot([("t", volume)])
        backend = env.backend
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
