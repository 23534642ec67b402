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
from runtime_core.testing.volume_environment import VolumeEnvironment, require_feature

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
    def test_killed_at(self, env: VolumeEnvironment, access: Access, act: str, point: str) -> None:
        """The next driver does it again, and it is as if nothing had happened."""
        volume = env.create_volume("v", access)
        with env.open(volume) as place:
            env.write(place, b"before")
        getattr(self, f"_killed_in_{act.replace(' ', '_')}")(env, volume, point)

    def _killed_in_create(self, env: VolumeEnvironment, volume: Volume, point: str) -> None:
        fresh = replace(volume, id="n")
        kill_at(env, point, lambda backend: backend.create(fresh, None))
        after = replace(env, backend=env.make())
        after.backend.create(fresh, None)
        assert after.backend.volumes() == {"v", "n"}
        with after.open(fresh) as place:
            env.write(place, b"works")

    def _killed_in_restore(self, env: VolumeEnvironment, volume: Volume, point: str) -> None:
        require_feature(env, "clones")
        copy, source = replace(volume, id="n"), Source("volume", "v", volume)
        kill_at(env, point, lambda backend: backend.create(copy, source))
        after = replace(env, backend=env.make())
        after.backend.create(copy, source)
        with after.open(copy) as place:
            assert env.read(place, 6) == b"before"

    def _killed_in_snapshot(self, env: VolumeEnvironment, volume: Volume, point: str) -> None:
        """With the volume mounted: it must not stay frozen."""
        require_feature(env, "groups")
        other = env.create_volume("w", volume.access)
        group = [("s", volume), ("t", other)]
        with env.open(volume) as place:
            kill_at(env, point, lambda backend: backend.snapshot(group))
            after = replace(env, backend=env.make())
            assert after.backend.snapshots() in (set(), {"s", "t"})
            run_within(10, lambda: env.write(place, b"thawed"))
            after.backend.snapshot(group)
        assert after.backend.snapshots() == {"s", "t"}
        copy = replace(volume, id="n")
        after.backend.create(copy, Source("snapshot", "s", volume))
        with after.open(copy) as place:
            assert env.read(place, 6) in (b"before", b"thawed")

    def _killed_in_delete(self, env: VolumeEnvironment, volume: Volume, point: str) -> None:
        if volume.access == "block":
            env.backend.device(volume, read_only=False)  # left over: delete gives it back
        kill_at(env, point, lambda backend: backend.delete("v"))
        after = env.make()
        after.delete("v")
        assert after.volumes() == set()

    def _killed_in_delete_snapshot(self, env: VolumeEnvironment, volume: Volume, point: str) -> None:
        require_feature(env, "snapshots")
        env.backend.snapshot([("s", volume)])
        kill_at(env, point, lambda backend: backend.delete_snapshot("s"))
        after = env.make()
        after.delete_snapshot("s")
        assert after.snapshots() == set()

    def _killed_in_mount(self, env: VolumeEnvironment, volume: Volume, point: str) -> None:
        fresh = env.create_volume("n", volume.access)
        kill_at(env, point, lambda backend: open_volume(backend, fresh))
        with replace(env, backend=env.make()).open(fresh) as place:
            env.write(place, b"works")

    def _killed_in_grown_mount(self, env: VolumeEnvironment, volume: Volume, point: str) -> None:
        require_feature(env, "expansion")
        larger = replace(volume, size=2 * volume.size)
        env.backend.expand(larger)
        kill_at(env, point, lambda backend: open_volume(backend, larger))
        after = replace(env, backend=env.make())
        with after.open(larger) as place:
            assert env.read(place, 6) == b"before"
            assert after.backend.usage(larger, str(place)).total > 1.5 * volume.size

    def _killed_in_expand(self, env: VolumeEnvironment, volume: Volume, point: str) -> None:
        require_feature(env, "expansion")
        larger = replace(volume, size=2 * volume.size)
        kill_at(env, point, lambda backend: backend.expand(larger))
        after = replace(env, backend=env.make())
        after.backend.expand(larger)
        with after.open(larger) as place:
            assert env.read(place, 6) == b"before"
            assert after.backend.usage(larger, str(place)).total > 1.5 * volume.size

    def _killed_in_grow(self, env: VolumeEnvironment, volume: Volume, point: str) -> None:
        if env.backend.features().expansion != "online":
            pytest.skip("this back end does not announce online expansion")
        larger = replace(volume, size=2 * volume.size)
        with env.open(volume) as place:
            env.backend.expand(larger)
            mounted = "" if volume.access == "block" else str(place)
            kill_at(env, point, lambda backend: grow_volume(backend, larger, mounted))
            grow_volume(env.make(), larger, mounted)
        with replace(env, backend=env.make()).open(larger) as place:
            assert env.read(place, 6) == b"before"
            assert env.backend.usage(larger, str(place)).total > 1.5 * volume.size

    def _killed_in_detach(self, env: VolumeEnvironment, volume: Volume, point: str) -> None:
        os.close(open_volume(env.backend, volume))
        kill_at(env, point, lambda backend: backend.detach("v"))
        env.make().detach("v")
        with env.open(volume) as place:
            assert env.read(place, 6) == b"before"


def open_volume(backend: VolumeBackend, volume: Volume) -> int:
    if volume.access == "block":
        return os.open(backend.device(volume, read_only=False), os.O_RDONLY)
    return backend.mount(volume, [], read_only=False)


def grow_volume(backend: VolumeBackend, volume: Volume, mounted: str) -> None:
    try:
        backend.grow(volume, mounted)
    except FailedPrecondition:
        pass  # at the next mount, then


def kill_at(env: VolumeEnvironment, point: str, act: Callable[[VolumeBackend], object]) -> None:
    """Another driver is killed at `point` while it does this; one that does not pass there ends it."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            failpoint._ARMED[point] = ["kill", 1]
            act(env.make())
            status = 0
        finally:
            os._exit(status)
    _pid, result = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(result) in (0, -signal.SIGKILL)


def run_within(seconds: int, act: Callable[[], object]) -> None:
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
