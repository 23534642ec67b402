"""A back end of plain files, for tests of the driver: sizes, snapshots and failures, but nothing is mounted.

What a volume is: a sparse file of its size in volumes/, the bytes of a snapshot in snapshots/. Settings: `capacity`,
`expansion`, `without` (features to leave out), `broken` (a file: while it is there every call fails).
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from runtime_core.errors import InvalidArgument, NotFound, OutOfRange, ResourceExhausted, Unavailable
from runtime_core.interfaces.volume import Capacity, Extent, Features, Problem, Source, Usage, Volume
from runtime_core.kernel import failpoint

_UNIT = 1 << 20
_BLOCK = 4096


class MemoryBackend:
    def __init__(self, directory: str, settings: Mapping[str, Any]) -> None:
        self._volumes, self._snapshots = Path(directory, "volumes"), Path(directory, "snapshots")
        for path in (self._volumes, self._snapshots):
            path.mkdir(parents=True, exist_ok=True)
        self._settings = dict(settings)
        self._lock = threading.Lock()
        self.applied: dict[str, dict[str, str]] = {}

    def features(self) -> Features:
        without = self._settings.get("without", ())
        return Features(
            access=frozenset({"mount", "block"} - set(without)),
            file_systems=("ext4", "xfs"),
            snapshots="snapshots" not in without,
            clones="clones" not in without,
            groups="groups" not in without,
            expansion=self._settings.get("expansion", "online"),
            metadata="metadata" not in without,
            mutable_parameters=frozenset() if "mutable" in without else frozenset({"iops"}),
            parameters=frozenset({"allocation"}),
        )

    def check(self, volume: Volume) -> None:
        if volume.parameters.get("allocation", "sparse") not in ("sparse", "full"):
            raise InvalidArgument("parameters.allocation: is neither sparse nor full")
        if not volume.parameters.get("iops", "1").isdigit():
            raise InvalidArgument("mutable_parameters.iops: is not a number")

    def round_size(self, required: int, limit: int, fs_type: str) -> int:
        size = max(_UNIT, -(-required // _UNIT) * _UNIT)
        if limit and size > limit:
            raise OutOfRange(f"capacity_range.limit_bytes: {limit} is less than {size}")
        return size

    def capacity(self) -> Capacity:
        self._answer()
        total = int(self._settings.get("capacity", 1 << 40))
        used = sum(path.stat().st_size for path in self._volumes.iterdir())
        return Capacity(available=max(0, total - used), total=total, smallest_volume=_UNIT, largest_volume=total)

    def create(self, volume: Volume, source: Source | None) -> None:
        self._answer()
        if volume.size > self.capacity().available:
            raise ResourceExhausted(f"{volume.size} bytes are not there")
        path = self._volumes / volume.id
        if source is None:
            path.touch()
        else:
            of = self._snapshots if source.kind == "snapshot" else self._volumes
            shutil.copyfile(of / source.id, path)
        failpoint.hit("memory.create")
        os.truncate(path, volume.size)

    def delete(self, volume_id: str) -> None:
        self._answer()
        (self._volumes / volume_id).unlink(missing_ok=True)

    def expand(self, volume: Volume) -> bool:
        self._answer()
        os.truncate(self._volumes / volume.id, volume.size)
        return volume.access == "mount"

    def modify(self, volume: Volume) -> None:
        self._answer()
        self.applied[volume.id] = dict(volume.parameters)

    def snapshot(self, pairs: Sequence[tuple[str, Volume]]) -> None:
        self._answer()
        with self._lock:
            missing = [volume.id for _, volume in pairs if not (self._volumes / volume.id).exists()]
            if missing:
                raise NotFound(f"the file of {', '.join(missing)} is gone")
            for number, (snapshot_id, volume) in enumerate(pairs):
                if number:
                    failpoint.hit("memory.snapshot.second")
                shutil.copyfile(self._volumes / volume.id, self._snapshots / snapshot_id)

    def delete_snapshot(self, snapshot_id: str) -> None:
        self._answer()
        (self._snapshots / snapshot_id).unlink(missing_ok=True)

    def allocated(self, snapshot_id: str, start: int) -> Iterator[Extent]:
        content = (self._snapshots / snapshot_id).read_bytes()
        for offset in range(start // _BLOCK * _BLOCK, len(content), _BLOCK):
            if "fail_at" in self._settings and offset >= self._settings["fail_at"]:
                raise Unavailable("the disk went away")
            if any(content[offset : offset + _BLOCK]):
                yield Extent(offset, _BLOCK)

    def changed(self, base_id: str, target_id: str, start: int) -> Iterator[Extent]:
        base, target = ((self._snapshots / one).read_bytes() for one in (base_id, target_id))
        for offset in range(start // _BLOCK * _BLOCK, len(target), _BLOCK):
            if base[offset : offset + _BLOCK] != target[offset : offset + _BLOCK]:
                yield Extent(offset, _BLOCK)

    def volumes(self) -> set[str]:
        return set(os.listdir(self._volumes))

    def snapshots(self) -> set[str]:
        return set(os.listdir(self._snapshots))

    def mount(self, volume: Volume, flags: Sequence[str], *, read_only: bool) -> int:
        raise NotImplementedError

    def device(self, volume: Volume, *, read_only: bool) -> str:
        raise NotImplementedError

    def detach(self, volume_id: str) -> None:
        """Nothing was attached."""

    def grow(self, volume: Volume, mounted: str) -> None:
        raise NotImplementedError

    def usage(self, volume: Volume, mounted: str) -> Usage:
        size = (self._volumes / volume.id).stat().st_size
        return Usage(total=size, available=size - _UNIT // 2, used=_UNIT // 2)

    def problems(self, volume: Volume, mounted: str) -> list[Problem]:
        if not (self._volumes / volume.id).exists():
            return [Problem("ImageMissing", f"the file of {volume.id} is gone")]
        return []

    def _answer(self) -> None:
        if (broken := self._settings.get("broken")) and os.path.exists(broken):
            raise Unavailable("the back end is broken")
