"""Sizes of directories by project quota: a project for each, of numbers that nobody else uses."""

from __future__ import annotations

import os
import threading

from runtime_core.errors import ResourceExhausted
from runtime_core.kernel import project_quota
from runtime_core.volumes import mount_table

#: far above what administrators write in /etc/projects
_FIRST, _LAST = 0x5452_0000, 0x5452_FFFF
_FILE_SYSTEMS = ("ext4", "xfs")


class Projects:
    def __init__(self, directory: str) -> None:
        self._root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._lock = threading.Lock()
        self._taken: set[int] = set()
        self.fs_type, self.enforced = _file_system(self._root)

    def assign(self, directory: str, size: int) -> None:
        """Let what will be in the empty `directory` have at most `size` bytes."""
        project = self._take()
        project_quota.limit(self._root, project, size)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            project_quota.assign(descriptor, project)
        finally:
            os.close(descriptor)

    def _take(self) -> int:
        """One that no inode counts for: the directory of every volume counts for its own."""
        with self._lock:
            for project in range(_FIRST, _LAST):
                if project not in self._taken and project_quota.usage(self._root, project)[2] == 0:
                    self._taken.add(project)
                    return project
        raise ResourceExhausted("all project numbers of this driver are in use")

    def limit(self, directory: str, size: int) -> None:
        project = self.of(directory)
        if project:
            project_quota.limit(self._root, project, size)

    def of(self, directory: str) -> int:
        """0 when it has none."""
        try:
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return 0
        try:
            project = project_quota.project_of(descriptor)
        finally:
            os.close(descriptor)
        return project if _FIRST <= project < _LAST else 0

    def release(self, project: int) -> None:
        """Once nothing counts for it any more."""
        if project:
            project_quota.limit(self._root, project, 0)
            self._taken.discard(project)

    def usage(self, directory: str) -> tuple[int, int]:
        """(limit, bytes used), zeros without a quota."""
        project = self.of(directory)
        return project_quota.usage(self._root, project)[:2] if project else (0, 0)


def _file_system(root: int) -> tuple[str, bool]:
    """(its type, whether it enforces project quotas)."""
    device = os.fstat(root).st_dev
    for entry in mount_table.read():
        if (entry.major, entry.minor) == (os.major(device), os.minor(device)):
            enforced = entry.fs_type in _FILE_SYSTEMS and "prjquota" in entry.super_options and project_quota.is_supported(root)
            return entry.fs_type, enforced
    return "directory", False
