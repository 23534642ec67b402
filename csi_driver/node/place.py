"""A place below the kubelet's directory: a name in a directory that was opened component by component.

Nothing on the way may be a symlink, and nothing is followed: whoever swaps one in, at whatever
time, gets an error (CVE-2021-25741). What is done there is done by descriptor and name.
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
class Place:
    #: O_PATH descriptor of the directory
    parent: int
    name: str
    #: the field that named it, for errors
    field: str


def checked(kubelet_dir: Path, path: str, field: str) -> str:
    """`path` without what says nothing ("//", "/./", a slash at the end); InvalidArgument when it is not below `kubelet_dir`."""
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
    return plain(path)


def plain(path: str) -> str:
    return "/" + "/".join(_parts(path))


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


@contextmanager
def opened(kubelet_dir: Path, path: str, field: str) -> Iterator[Place]:
    """The place `path`, which `checked` gave; NotFound when its directory is not there."""
    below = _parts(path)[len(_parts(str(kubelet_dir))) :]
    base = os.open(kubelet_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        parent = _open(base, "/".join(below[:-1]) or ".", os.O_PATH | os.O_DIRECTORY, field)
    finally:
        os.close(base)
    try:
        yield Place(parent, below[-1], field)
    finally:
        os.close(parent)


def open_there(place: Place, flags: int = os.O_PATH) -> int:
    """A descriptor of what is there, of the mount when there is one; NotFound when there is nothing."""
    return _open(place.parent, place.name, flags, place.field)


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


def is_mounted(place: Place) -> bool:
    """Whether something is mounted there: told by the mount's number, never by the text of a path."""
    try:
        found = open_there(place)
    except NotFound:
        return False
    try:
        return mount_number(found) != mount_number(place.parent)
    finally:
        os.close(found)


def mount_number(descriptor: int) -> int:
    """The first field of its line in /proc/self/mountinfo."""
    with open(f"/proc/self/fdinfo/{descriptor}", "rb", buffering=0) as file:
        for line in file.read().splitlines():
            if line.startswith(b"mnt_id:"):
                return int(line[7:])
    raise FailedPrecondition("/proc/self/fdinfo tells no mnt_id")


def attach(place: Place, tree: int) -> None:
    """Mount the detached `tree` there."""
    target = open_there(place)
    try:
        mounts.attach(tree, target)
    finally:
        os.close(target)


def check_free(place: Place, kind: Access) -> None:
    """Refuse whatever is there and is neither what a mount of this kind can be put on, nor what is made for it."""
    try:
        found = open_there(place)
    except NotFound:
        return
    try:
        if mount_number(found) != mount_number(place.parent):
            raise AlreadyExists(f"{place.field}: something else is mounted there")
        status = os.fstat(found)
    finally:
        os.close(found)
    if kind == "mount" and not stat.S_ISDIR(status.st_mode):
        raise FailedPrecondition(f"{place.field}: what is there is not a directory")
    if kind == "block" and not (stat.S_ISREG(status.st_mode) and status.st_size == 0):
        raise FailedPrecondition(f"{place.field}: what is there is not an empty file")


def make(place: Place, kind: Access) -> None:
    """The directory or file to mount on. Idempotent; what is there keeps its content."""
    try:
        if kind == "mount":
            os.mkdir(place.name, 0o750, dir_fd=place.parent)
        else:
            flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open(place.name, flags, 0o600, dir_fd=place.parent))
    except FileExistsError:
        pass


def unmount(place: Place) -> None:
    """Take away what is mounted there. Idempotent; Unavailable while somebody works in it."""
    for _mount in range(_STACKED):
        if not is_mounted(place):
            return
        _unmount_once(place)


def _unmount_once(place: Place) -> None:
    path = f"/proc/self/fd/{place.parent}/{place.name}"
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
            raise Unavailable(f"{place.field}: is in use{_by_whom(place)}")
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def _by_whom(place: Place) -> str:
    mounted = open_there(place)
    try:
        found = holders.of_mount(mount_number(mounted))
    finally:
        os.close(mounted)
    return f" by {found}" if found else ""


def drop_copies(place: Place) -> None:
    """Take what was mounted on the directory there away from every other mount namespace too. Idempotent.

    Whoever clones a mount namespace, as each start of a container does, holds a copy of every mount, and its unmounting
    here reaches only copies that are shared. An empty directory that takes the name of another one does: the kernel
    takes all mounts off the one that goes, wherever they are seen (fs/namei.c, vfs_rename and detach_mounts; Linux 3.18).
    """
    try:
        status = os.stat(place.name, dir_fd=place.parent, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(status.st_mode):
        return
    try:
        _replace(place, status)
    except OSError as error:
        if error.errno not in _CANNOT_REPLACE:
            raise


def _replace(place: Place, status: os.stat_result) -> None:
    """By a new directory with the same owner and mode. Its first name is always the same: what a crash leaves is taken again."""
    name = f".{zlib.crc32(os.fsencode(place.name)):08x}.unmounted"
    try:
        os.mkdir(name, 0o700, dir_fd=place.parent)
    except FileExistsError:
        pass
    try:
        made = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place.parent)
        try:
            os.fchown(made, status.st_uid, status.st_gid)
            os.fchmod(made, stat.S_IMODE(status.st_mode))
        finally:
            os.close(made)
        os.rename(name, place.name, src_dir_fd=place.parent, dst_dir_fd=place.parent)
    except OSError:
        os.rmdir(name, dir_fd=place.parent)
        raise


def remove(place: Place) -> None:
    """Remove the directory or file that was made for a mount: empty, or it is not ours. Idempotent."""
    try:
        mode = os.stat(place.name, dir_fd=place.parent, follow_symlinks=False)
        if stat.S_ISDIR(mode.st_mode):
            os.rmdir(place.name, dir_fd=place.parent)
        elif stat.S_ISREG(mode.st_mode) and mode.st_size == 0:
            os.unlink(place.name, dir_fd=place.parent)
        else:
            raise FailedPrecondition(f"{place.field}: what is there is neither a directory nor an empty file, and not ours")
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EBUSY):
            raise
        raise FailedPrecondition(f"{place.field}: the directory is not empty, and what is in it is not ours") from error
