"""trivet.volume directory: a directory per volume, its size enforced by a project quota of ext4 or xfs.

    <directory>/volumes/<id>/data     snapshots/<id>/data

Who owns a file and runs in no user namespace may give it to another project, and so past the
limit; of ext4, who has CAP_SYS_RESOURCE is not held by it at all. For pods that are not
trusted with the node's space there is the loop back end.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

from runtime_core.errors import InvalidArgument, NotFound, OutOfRange, Unimplemented, from_oserror
from runtime_core.interfaces.volume import Capacity, Extent, Features, Problem, Source, Usage, Volume
from runtime_core.kernel import failpoint
from runtime_core.volumes import health, settings, shared_mount, sizes, tree, tree_copy
from runtime_core.volumes.layout import Layout
from runtime_core.volumes.projects import Projects

_PARAMETERS = {"enforcement": ("quota", "none")}
_DATA, _UNFINISHED = "data", "data.new"


class DirectoryBackend:
    """See runtime_core.interfaces.volume."""

    def __init__(self, directory: str, settings_: Mapping[str, object]) -> None:
        settings.parse_numbers(settings_, {})
        self._layout = Layout(os.path.abspath(directory), tree.remove)
        self._projects = Projects(self._layout.root)
        self._layout.recover()

    def features(self) -> Features:
        return Features(
            access=frozenset({"mount"}),
            file_systems=(self._projects.fs_type,),
            snapshots=True,
            clones=True,
            groups=True,
            expansion="online",
            parameters=frozenset(_PARAMETERS),
        )

    def check(self, volume: Volume) -> None:
        if volume.access != "mount":
            raise InvalidArgument("access: a directory is no block device; the loop back end has block volumes")
        settings.check_file_system(volume, (self._projects.fs_type,))
        if self._is_limited(volume) and not self._projects.enforced:
            raise InvalidArgument(
                "parameters.enforcement: the file system of the volumes has no project quota that is on (ext4 made with "
                "-O project,quota or xfs, mounted with prjquota); `none` lets volumes be without a limit"
            )

    def _is_limited(self, volume: Volume) -> bool:
        return settings.parse_choices(volume.parameters, _PARAMETERS)["enforcement"] == "quota"

    def round_size(self, required: int, limit: int, fs_type: str) -> int:
        return sizes.round_up(required, limit, sizes.MIB)

    def capacity(self) -> Capacity:
        return sizes.capacity(self._layout.root, sizes.MIB)

    # ---- the controller service

    def create(self, volume: Volume, source: Source | None) -> None:
        self.check(volume)
        if os.path.isdir(self._data(volume.id)):
            return
        try:
            with self._layout.new_volume(volume.id) as directory:
                sizes.check_free_space(directory, volume.size)
                path = os.path.join(directory, _UNFINISHED)
                if source is None:
                    os.mkdir(path, 0o755)
                    self._assign(path, volume)
                else:
                    self._fill(path, volume, source)
                failpoint.hit("volume.create.filled")
                os.rename(path, os.path.join(directory, _DATA))
        except OSError as error:
            raise from_oserror(error, f"creating volume {volume.id}") from error

    def _data(self, volume_id: str) -> str:
        return os.path.join(self._layout.volume(volume_id), _DATA)

    def _assign(self, path: str, volume: Volume) -> None:
        if self._is_limited(volume):
            self._projects.assign(path, volume.size)

    def _fill(self, path: str, volume: Volume, source: Source) -> None:
        place = self._layout.volume(source.id) if source.kind == "volume" else self._layout.snapshot(source.id)
        original = os.path.join(place, _DATA)
        if not os.path.isdir(original):
            raise NotFound(f"{source.kind} {source.id} does not exist")
        if volume.size < source.volume.size:
            raise OutOfRange(f"capacity_range: {volume.size} bytes are less than the source has")
        tree_copy.copy_at_one_instant([(original, path)], lambda made: self._assign(made, volume))

    def delete(self, volume_id: str) -> None:
        project = self._projects.project_of(self._data(volume_id))
        self._layout.delete_volume(volume_id)
        self._projects.release(project)

    def expand(self, volume: Volume) -> bool:
        self._existing(volume)
        try:
            self._projects.limit(self._data(volume.id), volume.size)
        except OSError as error:
            raise from_oserror(error, f"expanding volume {volume.id}") from error
        failpoint.hit("volume.expand.sized")
        return False

    def _existing(self, volume: Volume) -> str:
        path = self._data(volume.id)
        if not os.path.isdir(path):
            raise NotFound(f"volume {volume.id} does not exist")
        return path

    def modify(self, volume: Volume) -> None:
        self.check(volume)

    def snapshot(self, pairs: Sequence[tuple[str, Volume]]) -> None:
        try:
            with self._layout.new_snapshots([snapshot_id for snapshot_id, _volume in pairs]) as made:
                if made:
                    tree_copy.copy_at_one_instant(
                        [(self._existing(volume), os.path.join(made[snapshot_id], _DATA)) for snapshot_id, volume in pairs]
                    )
        except OSError as error:
            raise from_oserror(error, f"snapshot of {', '.join(volume.id for _one, volume in pairs)}") from error

    def delete_snapshot(self, snapshot_id: str) -> None:
        self._layout.delete_snapshot(snapshot_id)

    def allocated(self, snapshot_id: str, start: int) -> Iterator[Extent]:
        raise Unimplemented("a directory has no block view")

    def changed(self, base_id: str, target_id: str, start: int) -> Iterator[Extent]:
        raise Unimplemented("a directory has no block view")

    def volumes(self) -> set[str]:
        return self._layout.volumes()

    def snapshots(self) -> set[str]:
        return self._layout.snapshots()

    # ---- the node service

    def mount(self, volume: Volume, flags: Sequence[str], *, read_only: bool) -> int:
        try:
            return shared_mount.mount(self._data(volume.id), f"volume {volume.id}", flags, read_only=read_only)
        except OSError as error:
            raise from_oserror(error, f"mounting volume {volume.id}") from error

    def device(self, volume: Volume, *, read_only: bool) -> str:
        raise InvalidArgument("access: a directory is no block device")

    def detach(self, volume_id: str) -> None:
        self._layout.volume(volume_id)  # nothing was attached

    def grow(self, volume: Volume, mounted: str) -> None:
        """`expand` was all of it."""

    def usage(self, volume: Volume, mounted: str) -> Usage:
        """With a quota statfs(2) tells of the project, without one of the whole file system, as it is the only limit."""
        return sizes.mount_usage(self._existing(volume))

    def problems(self, volume: Volume, mounted: str) -> list[Problem]:
        path = self._data(volume.id)
        if not os.path.isdir(path):
            return [Problem("ImageMissing", f"its directory {path} is gone")]
        found = health.mount_problems(mounted) if mounted else []
        limit, used = (0, 0) if found else self._projects.usage(path)
        if limit and used + sizes.FULL_TOLERANCE > limit:
            found.append(Problem("QuotaExceeded", f"all of its {limit} bytes are used"))
        return found
