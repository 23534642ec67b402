"""The contract of `trivet.volume`, of a driver that is killed: the next one ends what it began."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from dataclasses import replace

import pytest

from runtime_core.errors import FailedPrecondition
from runtime_core.interfaces.volume import Access, Source, Volume, VolumeBackend
from runtime_core.kernel import failpoint
from runtime_core.testing.volume_world import (
    World,
    need_feature,
)

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


class FaultPromises:
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
