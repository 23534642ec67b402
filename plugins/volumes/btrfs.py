"""trivet.volume btrfs: a subvolume with a quota group per mounted volume, a shared image per block volume.

    <directory>/volumes/<id>/data      a subvolume       snapshots/<id>/data    a read-only snapshot
    <directory>/volumes/<id>/image     of a block volume snapshots/<id>/image   with its extents

Who may run ioctls in a volume may make subvolumes in it, to which its limit does not apply:
for pods that are not trusted with the node's space there is the loop back end, on btrfs too.
Simple quotas are left as they are where somebody enabled them, but then the old content that
snapshots hold counts against the volume.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence

from runtime_core.errors import FailedPrecondition, InvalidArgument, NotFound, OutOfRange, from_oserror
from runtime_core.interfaces.volume import Capacity, Extent, Features, Problem, Source, Usage, Volume
from runtime_core.kernel import btrfs, failpoint, syscalls
from runtime_core.volumes import deltas, health, images, settings, shared_mount, sizes, subvolumes
from runtime_core.volumes.image_volumes import ImageVolumes
from runtime_core.volumes.layout import Layout

_DATA = subvolumes.NAME
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class BtrfsBackend:
    """See runtime_core.interfaces.volume."""

    def __init__(self, directory: str, settings_: Mapping[str, object]) -> None:
        settings.parse_numbers(settings_, {})
        self._layout = Layout(os.path.abspath(directory), _remove)
        root = os.open(self._layout.root, _DIRECTORY)
        try:
            if syscalls.filesystem_type(root) != btrfs.MAGIC:
                raise FailedPrecondition(f"{directory} does not lie on btrfs")
            btrfs.enable_quota(root)
        except OSError as error:
            raise FailedPrecondition(f"quota groups cannot be enabled on the btrfs of {directory}: {error}") from error
        finally:
            os.close(root)
        self._blocks = ImageVolumes(self._layout, freeze_seconds=30, program_seconds=900)
        self._layout.recover()

    def features(self) -> Features:
        return Features(
            access=frozenset({"mount", "block"}),
            file_systems=("btrfs",),
            snapshots=True,
            clones=True,
            groups=True,
            expansion="online",
            metadata=True,
        )

    def check(self, volume: Volume) -> None:
        settings.parse_choices(volume.parameters, {})
        settings.check_file_system(volume, ("btrfs",))

    def round_size(self, required: int, limit: int, fs_type: str) -> int:
        return sizes.round_up(required, limit, sizes.MIB)

    def capacity(self) -> Capacity:
        return sizes.capacity(self._layout.root, sizes.MIB)

    def create(self, volume: Volume, source: Source | None) -> None:
        self.check(volume)
        if self._is_whole(volume):
            return
        try:
            with self._layout.new_volume(volume.id) as directory:
                if source is not None:
                    self._fill(directory, volume, source)
                elif volume.access == "block":
                    images.create(directory, volume.size, full=False)
                else:
                    sizes.check_free_space(directory, volume.size)
                    subvolumes.create(directory, volume.size)
        except OSError as error:
            raise from_oserror(error, f"creating volume {volume.id}") from error

    def _is_whole(self, volume: Volume) -> bool:
        path = self._layout.volume(volume.id)
        if volume.access == "block":
            return os.path.exists(os.path.join(path, images.NAME))
        return subvolumes.is_limited(path)

    def _fill(self, directory: str, volume: Volume, source: Source) -> None:
        if source.volume.access != volume.access:
            raise InvalidArgument("access: a subvolume has no block view, and an image no files")
        place = self._layout.volume(source.id) if source.kind == "volume" else self._layout.snapshot(source.id)
        if not os.path.isdir(place):
            raise NotFound(f"{source.kind} {source.id} does not exist")
        if volume.size < source.volume.size:
            raise OutOfRange(f"capacity_range: {volume.size} bytes are less than the source has")
        if volume.access == "block":
            self._blocks.copy([(place, source.volume, directory)])
            images.finish_copy(directory, volume.size, full=False)
        else:
            subvolumes.clone(place, directory, volume.size)

    def delete(self, volume_id: str) -> None:
        self._blocks.release(volume_id)
        self._layout.delete_volume(volume_id)

    def expand(self, volume: Volume) -> bool:
        try:
            if volume.access == "block":
                images.expand(self._blocks.image(volume.id), volume.size, full=False)
            else:
                subvolumes.set_limit(self._existing(volume), volume.size)
        except OSError as error:
            raise from_oserror(error, f"expanding volume {volume.id}") from error
        failpoint.hit("volume.expand.sized")
        return volume.access == "block" and self._blocks.is_attached(volume.id)

    def modify(self, volume: Volume) -> None:
        self.check(volume)

    def snapshot(self, pairs: Sequence[tuple[str, Volume]]) -> None:
        if len({volume.access for _one, volume in pairs}) > 1:
            raise FailedPrecondition("a group has one instant only when all of its volumes are mounted ones, or all block")
        try:
            with self._layout.new_snapshots([snapshot_id for snapshot_id, _volume in pairs]) as made:
                copies = [
                    (self._layout.volume(volume.id), volume, made[snapshot_id])
                    for snapshot_id, volume in pairs
                    if snapshot_id in made
                ]
                if not copies:
                    return
                if pairs[0][1].access == "block":
                    self._blocks.copy(copies)
                    for directory in made.values():
                        images.finish_copy(directory, 0, full=False)
                else:
                    subvolumes.snapshot_at_one_instant([(self._existing(volume), target) for _place, volume, target in copies])
        except OSError as error:
            raise from_oserror(error, f"snapshot of {', '.join(volume.id for _one, volume in pairs)}") from error

    def _existing(self, volume: Volume) -> str:
        path = self._layout.volume(volume.id)
        if not os.path.isdir(os.path.join(path, _DATA)):
            raise NotFound(f"volume {volume.id} does not exist")
        return path

    def delete_snapshot(self, snapshot_id: str) -> None:
        self._layout.delete_snapshot(snapshot_id)

    def allocated(self, snapshot_id: str, start: int) -> Iterator[Extent]:
        return deltas.allocated(self._snapshot_image(snapshot_id), start)

    def changed(self, base_id: str, target_id: str, start: int) -> Iterator[Extent]:
        return deltas.changed(self._snapshot_image(base_id), self._snapshot_image(target_id), start)

    def _snapshot_image(self, snapshot_id: str) -> str:
        if os.path.isdir(os.path.join(self._layout.snapshot(snapshot_id), _DATA)):
            raise FailedPrecondition(f"snapshot {snapshot_id} is of a mounted volume, a subvolume: it has no block view")
        return self._layout.snapshot_file(snapshot_id, images.NAME)

    def volumes(self) -> set[str]:
        return self._layout.volumes()

    def snapshots(self) -> set[str]:
        return self._layout.snapshots()

    def mount(self, volume: Volume, flags: Sequence[str], *, read_only: bool) -> int:
        path = os.path.join(self._layout.volume(volume.id), _DATA)
        try:
            return shared_mount.mount(path, f"volume {volume.id}", flags, read_only=read_only)
        except OSError as error:
            raise from_oserror(error, f"mounting volume {volume.id}") from error

    def device(self, volume: Volume, *, read_only: bool) -> str:
        return self._blocks.device(volume, read_only=read_only)

    def detach(self, volume_id: str) -> None:
        self._blocks.detach(volume_id)

    def grow(self, volume: Volume, mounted: str) -> None:
        if volume.access == "block":
            self._blocks.grow(volume, mounted)

    def usage(self, volume: Volume, mounted: str) -> Usage:
        if volume.access == "block":
            return self._blocks.usage(volume, mounted)
        return subvolumes.usage(self._existing(volume), volume.size)

    def problems(self, volume: Volume, mounted: str) -> list[Problem]:
        if volume.access == "block":
            return self._blocks.problems(volume, mounted)
        if not os.path.isdir(os.path.join(self._layout.volume(volume.id), _DATA)):
            return [Problem("ImageMissing", f"its subvolume in {self._layout.volume(volume.id)} is gone")]
        found = health.mount_problems(mounted) if mounted else []
        if not found and self.usage(volume, mounted).available < sizes.FULL_TOLERANCE:
            found.append(Problem("QuotaExceeded", f"all of its {volume.size} bytes are used"))
        return found


def _remove(path: str) -> None:
    """A directory with a subvolume, an image, or both halves of one that was being made."""
    try:
        subvolumes.destroy(path)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise
    for name in _directories(path):
        _remove(os.path.join(path, name))  # of a group that was not finished
    shutil.rmtree(path, ignore_errors=True)


def _directories(path: str) -> list[str]:
    with os.scandir(path) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False) and entry.name != _DATA]
