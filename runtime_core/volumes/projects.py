"""Sizes of directories by project quota: a project for each, of numbers that nobody else uses."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from runtime_core.errors import ResourceExhausted
from runtime_core.kernel import project_quota
from runtime_core.volumes import mount_table

#: far above what administrators write in /etc/projects
_FIRST, _LAST = 0x5452_0000, 0x5452_FFFF
_FILE_SYSTEMS = ("ext4", "xfs")


class Projects:
    """Allocates project ids on the file system of one directory."""

    def __init__(self, directory: str) -> None:
        self._root = directory
        self._lock = threading.Lock()
        self._taken: set[int] = set()
        with _opened(directory) as root:
            self.fs_type, self.enforced = _file_system(root)

    def assign(self, directory: str, size: int) -> None:
        """Let what will be in the empty `directory` have at most `size` bytes."""
        with _opened(directory) as descriptor:
            project = self._allocate_project(descriptor)
            project_quota.limit(descriptor, project, size)
            project_quota.assign(descriptor, project)

    def _allocate_project(self, descriptor: int) -> int:
        """Allocate a project id that no inode uses; the directory of every volume uses its own."""
        with self._lock:
            for project in range(_FIRST, _LAST):
                if project not in self._taken and project_quota.usage(descriptor, project)[2] == 0:
                    self._taken.add(project)
                    return project
        raise ResourceExhausted("all project numbers of this driver are in use")

    def limit(self, directory: str, size: int) -> None:
        """Change the size; nothing to do for a directory without a project."""
        with _opened(directory) as descriptor:
            project = _project(descriptor)
            if project:
                project_quota.limit(descriptor, project, size)

    def project_of(self, directory: str) -> int:
        """0 when it has none."""
        try:
            with _opened(directory) as descriptor:
                return _project(descriptor)
        except FileNotFoundError:
            return 0

    def release(self, project: int) -> None:
        """Once nothing counts for it any more."""
        if project:
            with _opened(self._root) as root:
                project_quota.limit(root, project, 0)
            self._taken.discard(project)

    def usage(self, directory: str) -> tuple[int, int]:
        """(limit, bytes used), zeros without a quota."""
        with _opened(directory) as descriptor:
            project = _project(descriptor)
            return project_quota.usage(descriptor, project)[:2] if project else (0, 0)


@contextmanager
def _opened(directory: str) -> Iterator[int]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _project(descriptor: int) -> int:
    """0 for none, and for one that is not of this driver; of file systems without projects too."""
    try:
        project = project_quota.project_of(descriptor)
    except OSError as error:
        if error.errno not in (errno.ENOTTY, errno.EOPNOTSUPP):
            raise
        return 0
    return project if _FIRST <= project < _LAST else 0


def _file_system(root: int) -> tuple[str, bool]:
    """(its type, whether it enforces project quotas)."""
    device = os.fstat(root).st_dev
    for entry in mount_table.read_mounts():
        if (entry.major, entry.minor) == (os.major(device), os.minor(device)):
            enforced = entry.fs_type in _FILE_SYSTEMS and "prjquota" in entry.super_options and project_quota.is_supported(root)
            return entry.fs_type, enforced
    return "directory", False
