"""Mount points below the kubelet's directory: a name in a directory that is opened component by component.

No symlink is followed anywhere in the path, also not one that is swapped in meanwhile (CVE-2021-25741): all
operations use the directory's descriptor and the name.
"""

from __future__ import annotations

import errno
import os
import stat
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runtime_core.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, Unavailable
from runtime_core.interfaces.volume import Access
from runtime_core.kernel import holders, mounts, syscalls

_RESOLVE = syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_BENEATH
_RACES = 32  # EAGAIN: something was renamed under the walk
_STACKED = 16  # mounts on one another that are taken away at once
#: seconds: whoever only looks at it, a statfs(2), makes it busy for as long, and no event tells the end of that
_BUSY, _LONGEST_PAUSE = 1.0, 0.05
_LONGEST_PATH, _LONGEST_NAME = 4095, 255
#: there is something in it, it is mounted on here a second time, the disk is full: copies are waited for then, not taken away
_CANNOT_REPLACE = (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY, errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass(frozen=True, slots=True)
class MountPoint:
    #: O_PATH descriptor of the directory
    parent: int
    name: str
    #: the field that named it, for errors
    field: str


def check_path(kubelet_dir: Path, path: str, field: str) -> str:
    """`path` normalized (no "//", "/./", trailing slash); InvalidArgument when it is not below `kubelet_dir`."""
    if not path:
        raise InvalidArgument(f"{field}: is missing")
    if not path.startswith("/") or "\0" in path or len(os.fsencode(path)) > _LONGEST_PATH:
        raise InvalidArgument(f"{field}: is not an absolute path of at most {_LONGEST_PATH} bytes")
    parts, base = _parts(path), _parts(str(kubelet_dir))
    if ".." in parts:
        raise InvalidArgument(f"{field}: must not contain '..'")
    if len(parts) <= len(base) or parts[: len(base)] != base:
        raise InvalidArgument(f"{field}: is not below the kubelet's directory {kubelet_dir}")
    if any(len(os.fsencode(part)) > _LONGEST_NAME for part in parts):
        raise InvalidArgument(f"{field}: a name in it is longer than {_LONGEST_NAME} bytes")
    return normalize(path)


def normalize(path: str) -> str:
    return "/" + "/".join(_parts(path))


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


@contextmanager
def open_mount_point(kubelet_dir: Path, path: str, field: str) -> Iterator[MountPoint]:
    """Open the directory of `path`, which `check_path` returned; NotFound when it does not exist."""
    below = _parts(path)[len(_parts(str(kubelet_dir))) :]
    base = os.open(kubelet_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        parent = _open(base, "/".join(below[:-1]) or ".", os.O_PATH | os.O_DIRECTORY, field)
    finally:
        os.close(base)
    try:
        yield MountPoint(parent, below[-1], field)
    finally:
        os.close(parent)


def open_mounted(point: MountPoint, flags: int = os.O_PATH) -> int:
    """A descriptor of the file or directory, or of what is mounted on it; NotFound when it does not exist."""
    return _open(point.parent, point.name, flags, point.field)


def _open(directory: int, path: str, flags: int, field: str) -> int:
    for _attempt in range(_RACES):
        try:
            return syscalls.openat2(directory, path, flags, 0, _RESOLVE)
        except BlockingIOError:
            continue
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise InvalidArgument(f"{field}: a symlink stands on the way") from error
            if error.errno == errno.ENOENT:
                raise NotFound(f"{field}: {path!r} does not exist") from error
            if error.errno == errno.ENOTDIR:
                raise InvalidArgument(f"{field}: {path!r} is not a directory") from error
            raise
    raise Unavailable(f"{field}: keeps changing while it is resolved")


def is_mounted(point: MountPoint) -> bool:
    """Whether something is mounted there: by comparing mount ids, never the text of a path."""
    try:
        found = open_mounted(point)
    except NotFound:
        return False
    try:
        return mount_id(found) != mount_id(point.parent)
    finally:
        os.close(found)


def mount_id(descriptor: int) -> int:
    """The mount id, which is the first field of a line in /proc/self/mountinfo."""
    with open(f"/proc/self/fdinfo/{descriptor}", "rb", buffering=0) as file:
        for line in file.read().splitlines():
            if line.startswith(b"mnt_id:"):
                return int(line[7:])
    raise FailedPrecondition("/proc/self/fdinfo tells no mnt_id")


def attach(point: MountPoint, tree: int) -> None:
    """Mount the detached `tree` there."""
    target = open_mounted(point)
    try:
        mounts.attach(tree, target)
    finally:
        os.close(target)


def check_free(point: MountPoint, kind: Access) -> None:
    """AlreadyExists or FailedPrecondition unless nothing is there, or an empty file or a directory that can be mounted on."""
    try:
        found = open_mounted(point)
    except NotFound:
        return
    try:
        if mount_id(found) != mount_id(point.parent):
            raise AlreadyExists(f"{point.field}: something else is mounted there")
        status = os.fstat(found)
    finally:
        os.close(found)
    if kind == "mount" and not stat.S_ISDIR(status.st_mode):
        raise FailedPrecondition(f"{point.field}: what is there is not a directory")
    if kind == "block" and not (stat.S_ISREG(status.st_mode) and status.st_size == 0):
        raise FailedPrecondition(f"{point.field}: what is there is not an empty file")


def create(point: MountPoint, kind: Access) -> None:
    """Create the directory or file to mount on. Idempotent; an existing one is not changed."""
    try:
        if kind == "mount":
            os.mkdir(point.name, 0o750, dir_fd=point.parent)
        else:
            flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open(point.name, flags, 0o600, dir_fd=point.parent))
    except FileExistsError:
        pass


def unmount(point: MountPoint) -> None:
    """Unmount what is mounted there. Idempotent; Unavailable while it is in use."""
    for _mount in range(_STACKED):
        if not is_mounted(point):
            return
        _unmount_once(point)


def _unmount_once(point: MountPoint) -> None:
    path = f"/proc/self/fd/{point.parent}/{point.name}"
    deadline, pause = time.monotonic() + _BUSY, 0.0001
    while True:
        try:
            syscalls.umount2(path, syscalls.UMOUNT_NOFOLLOW)
            return
        except OSError as error:
            if error.errno == errno.EINVAL:  # gone meanwhile
                return
            if error.errno != errno.EBUSY:
                raise
        if time.monotonic() > deadline:
            raise Unavailable(f"{point.field}: is in use{_holders(point)}")
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def _holders(point: MountPoint) -> str:
    mounted = open_mounted(point)
    try:
        found = holders.mount_holders(mount_id(mounted))
    finally:
        os.close(mounted)
    return f" by {found}" if found else ""


def unmount_copies(point: MountPoint) -> None:
    """Take what was mounted on the directory there away from every other mount namespace too. Idempotent.

    Whoever clones a mount namespace, as each start of a container does, holds a copy of every mount, and its unmounting
    here reaches only copies that are shared. An empty directory that takes the name of another one does: the kernel
    takes all mounts off the one that goes, wherever they are seen (fs/namei.c, vfs_rename and detach_mounts; Linux 3.18).
    """
    try:
        status = os.stat(point.name, dir_fd=point.parent, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(status.st_mode):
        return
    try:
        _replace(point, status)
    except OSError as error:
        if error.errno not in _CANNOT_REPLACE:
            raise


def _replace(point: MountPoint, status: os.stat_result) -> None:
    """By a new directory with the same owner and mode. Its first name is always the same: what a crash leaves is taken again."""
    name = f".{zlib.crc32(os.fsencode(point.name)):08x}.unmounted"
    try:
        os.mkdir(name, 0o700, dir_fd=point.parent)
    except FileExistsError:
        pass
    try:
        made = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=point.parent)
        try:
            os.fchown(made, status.st_uid, status.st_gid)
            os.fchmod(made, stat.S_IMODE(status.st_mode))
        finally:
            os.close(made)
        os.rename(name, point.name, src_dir_fd=point.parent, dst_dir_fd=point.parent)
    except OSError:
        os.rmdir(name, dir_fd=point.parent)
        raise


def remove(point: MountPoint) -> None:
    """Remove the directory or file that was created for a mount; FailedPrecondition when it is not empty. Idempotent."""
    try:
        mode = os.stat(point.name, dir_fd=point.parent, follow_symlinks=False)
        if stat.S_ISDIR(mode.st_mode):
            os.rmdir(point.name, dir_fd=point.parent)
        elif stat.S_ISREG(mode.st_mode) and mode.st_size == 0:
            os.unlink(point.name, dir_fd=point.parent)
        else:
            raise FailedPrecondition(f"{point.field}: what is there is neither a directory nor an empty file, and not ours")
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EBUSY):
            raise
        raise FailedPrecondition(f"{point.field}: the directory is not empty, and what is in it is not ours") from error
