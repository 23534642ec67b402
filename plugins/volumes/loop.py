"""trivet.volume loop: an image file per volume, with ext4 or xfs in it, or raw; its size is the limit.

    <directory>/volumes/<id>/image     and `made` once mkfs ended
    <directory>/snapshots/<id>/image   the same

Snapshots share extents where the file system below can (xfs, btrfs), else they are copied
without the holes while the volume's own file system is frozen.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence

from runtime_core.errors import InvalidArgument, NotFound, OutOfRange, from_oserror
from runtime_core.interfaces.volume import Capacity, Extent, Features, Problem, Source, Usage, Volume
from runtime_core.kernel import failpoint
from runtime_core.volumes import deltas, image_filesystem, images, settings, sizes
from runtime_core.volumes.image_volumes import ImageVolumes
from runtime_core.volumes.layout import Layout

_PARAMETERS = {"allocation": ("sparse", "full")}
#: seconds: how long a file system may stand still for a snapshot, and mkfs, fsck or resize may run
_SETTINGS = {"freeze-timeout": 30.0, "program-timeout": 900.0}


class LoopBackend:
    """See runtime_core.interfaces.volume."""

    def __init__(self, directory: str, settings_: Mapping[str, object]) -> None:
        limits = settings.parse_numbers(settings_, _SETTINGS)
        self._layout = Layout(os.path.abspath(directory), _remove)
        self._node = ImageVolumes(
            self._layout, freeze_seconds=limits["freeze-timeout"], program_seconds=limits["program-timeout"]
        )
        self._file_systems = image_filesystem.preferred()
        self._node.unfreeze_leftover()
        self._layout.recover()

    def features(self) -> Features:
        return Features(
            access=frozenset({"mount", "block"}),
            file_systems=self._file_systems,
            snapshots=True,
            clones=True,
            groups=True,
            expansion="online",
            metadata=True,
            mutable_parameters=frozenset({"allocation"}),
            parameters=frozenset(_PARAMETERS),
        )

    def check(self, volume: Volume) -> None:
        settings.parse_choices(volume.parameters, _PARAMETERS)
        settings.check_file_system(volume, image_filesystem.FILE_SYSTEMS)

    def round_size(self, required: int, limit: int, fs_type: str) -> int:
        return sizes.round_up(required, limit, image_filesystem.SMALLEST.get(fs_type, sizes.MIB))

    def capacity(self) -> Capacity:
        return sizes.capacity(self._layout.root, sizes.MIB)

    def create(self, volume: Volume, source: Source | None) -> None:
        self.check(volume)
        if os.path.exists(os.path.join(self._layout.volume(volume.id), images.NAME)):
            return
        try:
            with self._layout.new_volume(volume.id) as directory:
                if source is None:
                    images.create(directory, volume.size, full=_full(volume))
                else:
                    self._fill(directory, volume, source)
        except OSError as error:
            raise from_oserror(error, f"creating volume {volume.id}") from error

    def _fill(self, directory: str, volume: Volume, source: Source) -> None:
        if volume.access == source.volume.access and volume.fs_type != source.volume.fs_type:
            raise InvalidArgument(f"fs_type: {volume.fs_type!r} differs from the source's {source.volume.fs_type!r}")
        place = self._layout.volume(source.id) if source.kind == "volume" else self._layout.snapshot(source.id)
        if not os.path.isdir(place):
            raise NotFound(f"{source.kind} {source.id} does not exist")
        if volume.size < os.stat(os.path.join(place, images.NAME)).st_size:
            raise OutOfRange(f"capacity_range: {volume.size} bytes are less than the source has")
        self._node.copy([(place, source.volume, directory)])
        images.finish_copy(directory, volume.size, full=_full(volume))

    def delete(self, volume_id: str) -> None:
        self._node.release(volume_id)
        self._layout.delete_volume(volume_id)

    def expand(self, volume: Volume) -> bool:
        try:
            images.expand(self._node.image(volume.id), volume.size, full=_full(volume))
        except OSError as error:
            raise from_oserror(error, f"expanding volume {volume.id}") from error
        failpoint.hit("volume.expand.sized")
        return self._node.is_attached(volume.id)  # else `mount` and `device` see to it

    def modify(self, volume: Volume) -> None:
        """`allocation: full` sets its space aside now; `sparse` gives nothing back, but later growth is sparse."""
        self.check(volume)
        try:
            images.expand(self._node.image(volume.id), volume.size, full=_full(volume))
        except OSError as error:
            raise from_oserror(error, f"modifying volume {volume.id}") from error

    def snapshot(self, pairs: Sequence[tuple[str, Volume]]) -> None:
        try:
            with self._layout.new_snapshots([snapshot_id for snapshot_id, _volume in pairs]) as made:
                if not made:
                    return
                self._node.copy([(self._layout.volume(volume.id), volume, made[snapshot_id]) for snapshot_id, volume in pairs])
                for directory in made.values():
                    images.finish_copy(directory, 0, full=False)
        except OSError as error:
            raise from_oserror(error, f"snapshot of {', '.join(volume.id for _one, volume in pairs)}") from error

    def delete_snapshot(self, snapshot_id: str) -> None:
        self._layout.delete_snapshot(snapshot_id)

    def allocated(self, snapshot_id: str, start: int) -> Iterator[Extent]:
        return deltas.allocated(self._snapshot_image(snapshot_id), start)

    def changed(self, base_id: str, target_id: str, start: int) -> Iterator[Extent]:
        return deltas.changed(self._snapshot_image(base_id), self._snapshot_image(target_id), start)

    def _snapshot_image(self, snapshot_id: str) -> str:
        return self._layout.snapshot_file(snapshot_id, images.NAME)

    def volumes(self) -> set[str]:
        return self._layout.volumes()

    def snapshots(self) -> set[str]:
        return self._layout.snapshots()

    def mount(self, volume: Volume, flags: Sequence[str], *, read_only: bool) -> int:
        return self._node.mount(volume, flags, read_only=read_only)

    def device(self, volume: Volume, *, read_only: bool) -> str:
        return self._node.device(volume, read_only=read_only)

    def detach(self, volume_id: str) -> None:
        self._node.detach(volume_id)

    def grow(self, volume: Volume, mounted: str) -> None:
        self._node.grow(volume, mounted)

    def usage(self, volume: Volume, mounted: str) -> Usage:
        return self._node.usage(volume, mounted)

    def problems(self, volume: Volume, mounted: str) -> list[Problem]:
        return self._node.problems(volume, mounted)


def _full(volume: Volume) -> bool:
    return settings.parse_choices(volume.parameters, _PARAMETERS)["allocation"] == "full"


def _remove(path: str) -> None:
    """Directories here hold files of our own names; rmtree follows no symlinks."""
    shutil.rmtree(path, ignore_errors=True)
