"""A back end for tests of the node service: a mount is a tmpfs of the volume's size, a device a loop device over a sparse file.

What is in a tmpfs lives for as long as it is attached, or staged somewhere; `problems` is a table that a test fills.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runtime_core.errors import InvalidArgument, NotFound, OutOfRange
from runtime_core.interfaces.volume import Capacity, Features, Problem, Source, Usage, Volume
from runtime_core.kernel import loop_device, mounts, syscalls

_UNIT = 1 << 20
_ATTRIBUTES = {"noexec": syscalls.MOUNT_ATTR_NOEXEC, "nosuid": syscalls.MOUNT_ATTR_NOSUID, "noatime": syscalls.MOUNT_ATTR_NOATIME}


class TmpfsBackend:
    def __init__(self, directory: str, settings: Mapping[str, Any]) -> None:
        self.directory = Path(directory)
        self._attached: dict[str, str] = {}
        self.detached: list[str] = []
        self.wrong: dict[str, list[Problem]] = {}
        self.mounted_with: dict[str, tuple[tuple[str, ...], bool]] = {}
        self.grown: list[tuple[str, int, str]] = []

    def features(self) -> Features:
        both = frozenset({"mount", "block"})
        return Features(access=both, file_systems=("tmpfs", "ramfs"), expansion="online", parameters=frozenset({"color"}))  # type: ignore[arg-type]

    def check(self, volume: Volume) -> None:
        if volume.parameters.get("color", "red") not in ("red", "blue"):
            raise InvalidArgument("parameters.color: is neither red nor blue")

    def round_size(self, required: int, limit: int, fs_type: str) -> int:
        size = max(_UNIT, -(-required // _UNIT) * _UNIT)
        if limit and size > limit:
            raise OutOfRange("capacity_range.limit_bytes: is too small")
        return size

    def capacity(self) -> Capacity:
        return Capacity(available=1 << 40, total=1 << 40, smallest_volume=_UNIT, largest_volume=1 << 40)

    def create(self, volume: Volume, source: Source | None) -> None:
        with (self.directory / volume.id).open("wb") as file:
            file.truncate(volume.size)

    def delete(self, volume_id: str) -> None:
        (self.directory / volume_id).unlink(missing_ok=True)

    def expand(self, volume: Volume) -> bool:
        os.truncate(self.directory / volume.id, volume.size)
        return True

    def modify(self, volume: Volume) -> None: ...

    def snapshot(self, pairs: Sequence[tuple[str, Volume]]) -> None:
        raise NotImplementedError

    def delete_snapshot(self, snapshot_id: str) -> None:
        raise NotImplementedError

    def allocated(self, snapshot_id: str, start: int) -> Any:
        raise NotImplementedError

    def changed(self, base_id: str, target_id: str, start: int) -> Any:
        raise NotImplementedError

    def volumes(self) -> set[str]:
        return set(os.listdir(self.directory))

    def snapshots(self) -> set[str]:
        return set()

    def mount(self, volume: Volume, flags: Sequence[str], *, read_only: bool) -> int:
        if not (self.directory / volume.id).exists():
            raise NotFound(f"the image of {volume.id} is missing")
        self.mounted_with[volume.id] = tuple(flags), read_only
        if volume.id not in self._attached:
            self._attached[volume.id] = self._attach(volume)
        tree = mounts.clone(self._attached[volume.id])
        attributes = sum(_ATTRIBUTES.get(flag, 0) for flag in flags) | (syscalls.MOUNT_ATTR_RDONLY if read_only else 0)
        syscalls.mount_setattr(tree, attr_set=attributes)
        return tree

    def _attach(self, volume: Volume) -> str:
        """Before Linux 6.15 a mount can be cloned only where it is attached."""
        path = self.directory.parent / "attached" / volume.id
        path.mkdir(parents=True, exist_ok=True)
        target, made = os.open(path, os.O_PATH), mounts.tmpfs([f"size={volume.size}"])
        mounts.attach(made, target)
        os.close(made)
        os.close(target)
        return str(path)

    def device(self, volume: Volume, *, read_only: bool) -> str:
        image = str(self.directory / volume.id)
        for number in loop_device.find(image):
            if loop_device.is_read_only(number) == read_only:
                return loop_device.device_node(number)
        return loop_device.device_node(loop_device.attach(image, read_only=read_only))

    def detach(self, volume_id: str) -> None:
        self.detached.append(volume_id)
        if volume_id in self._attached:
            syscalls.umount2(self._attached.pop(volume_id), syscalls.MNT_DETACH)
        for number in loop_device.find(str(self.directory / volume_id)):
            loop_device.detach(number)

    def grow(self, volume: Volume, mounted: str) -> None:
        self.grown.append((volume.id, volume.size, mounted))

    def usage(self, volume: Volume, mounted: str) -> Usage:
        if volume.access == "block":
            return Usage(total=volume.size, available=0, used=0)
        found = os.statvfs(mounted)
        total, free = found.f_blocks * found.f_bsize, found.f_bavail * found.f_bsize
        return Usage(total, free, total - free, (found.f_files, found.f_favail, found.f_files - found.f_ffree))

    def problems(self, volume: Volume, mounted: str) -> list[Problem]:
        return list(self.wrong.get(volume.id, []))
