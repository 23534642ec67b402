"""Directory trees that somebody else filled: copied, compared and deleted by descriptor, never through a symlink."""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import uuid
from collections.abc import Iterator

from runtime_core.kernel import filesystems, syscalls

_BELOW = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_MAGICLINKS
# include/uapi/linux/fs.h; FS_IMMUTABLE_FL and FS_APPEND_FL
_FS_IOC_GETFLAGS, _FS_IOC_SETFLAGS, _LOCKS = 0x80086601, 0x40086602, 0x10 | 0x20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove(path: str) -> None:
    """Delete what `path` names, whatever it is; nothing when there is nothing.

    Directories are moved up beside it one by one, so that neither depth nor length of a path is a limit.
    """
    parent, name = os.path.split(path)
    directory = os.open(parent, _DIRECTORY)
    try:
        pending = [name]
        while pending:
            pending += _remove_one(directory, pending.pop())
    finally:
        os.close(directory)


def _remove_one(parent: int, name: str) -> list[str]:
    """Delete it, but for the directories in it: their new names in `parent`."""
    moved = []
    try:
        current = os.open(name, _DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        return []
    except OSError:
        os.unlink(name, dir_fd=parent)  # no directory: ENOTDIR, or ELOOP of a symlink
        return []
    try:
        for entry in os.listdir(current):
            try:
                moved += _unlink_or_move(parent, current, entry)
            except PermissionError:
                _unlock(current, ".")
                _unlock(current, entry)
                moved += _unlink_or_move(parent, current, entry)
    finally:
        os.close(current)
    os.rmdir(name, dir_fd=parent)
    return moved


def _unlink_or_move(parent: int, current: int, entry: str) -> list[str]:
    try:
        os.unlink(entry, dir_fd=current)
    except IsADirectoryError:
        name = uuid.uuid4().hex
        os.rename(entry, name, src_dir_fd=current, dst_dir_fd=parent)
        return [name]
    return []


def _unlock(directory: int, name: str) -> None:
    """Not immutable and not append-only any more (chattr(1))."""
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    try:
        flags = int.from_bytes(fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, bytes(8))[:4], "little")
        fcntl.ioctl(descriptor, _FS_IOC_SETFLAGS, (flags & ~_LOCKS).to_bytes(8, "little"))
    finally:
        os.close(descriptor)


def fingerprint(root: int) -> bytes:
    """Two are the same only if nothing was written, made, renamed or removed in between (ctime)."""
    digest = hashlib.sha256()
    for path, status in walk(root):
        facts = (os.fsencode(path), status.st_ino, status.st_ctime_ns, status.st_size, status.st_nlink)
        digest.update(repr(facts).encode())
    return digest.digest()


def walk(root: int) -> Iterator[tuple[str, os.stat_result]]:
    """Everything below `root`, a directory before what is in it, in a fixed order; "." first."""
    pending = ["."]
    while pending:
        path = pending.pop()
        status = os.stat(path, dir_fd=root, follow_symlinks=False)
        yield path, status
        if stat.S_ISDIR(status.st_mode):
            directory = _open(root, path, _DIRECTORY)
            try:
                names = sorted(os.listdir(directory), reverse=True)
            finally:
                os.close(directory)
            pending += [name if path == "." else f"{path}/{name}" for name in names]


def _open(root: int, path: str, flags: int) -> int:
    return syscalls.openat2(root, path, flags, 0, _BELOW)


def copy(source: int, target: int, deadline: float) -> None:
    """Let the empty directory `target` hold what `source` holds: owners, modes, times, extended attributes, hard links,
    holes; the content is shared where the file system can.
    """
    links: dict[int, str] = {}
    directories: list[tuple[str, os.stat_result]] = []
    for path, status in walk(source):
        if stat.S_ISDIR(status.st_mode):
            directories.append((path, status))
            if path != ".":
                os.mkdir(path, 0o700, dir_fd=target)
        elif status.st_nlink > 1 and status.st_ino in links:
            os.link(links[status.st_ino], path, src_dir_fd=target, dst_dir_fd=target, follow_symlinks=False)
            continue
        else:
            _copy_one(source, target, path, status, deadline)
            links[status.st_ino] = path
        _copy_attributes(source, target, path, status)
    for path, status in reversed(directories):
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=target, follow_symlinks=False)


def _copy_one(source: int, target: int, path: str, status: os.stat_result, deadline: float) -> None:
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(path, dir_fd=source), path, dir_fd=target)
    elif not stat.S_ISREG(status.st_mode):
        os.mknod(path, status.st_mode, status.st_rdev, dir_fd=target)
    else:
        content = _open(source, path, os.O_RDONLY | os.O_NOFOLLOW)
        made = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=target)
        try:
            filesystems.copy(content, made, deadline)
        finally:
            os.close(content)
            os.close(made)


def _copy_attributes(source: int, target: int, path: str, status: os.stat_result) -> None:
    """Owner first: a change of it drops capabilities and the set-id bits."""
    os.chown(path, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(path, stat.S_IMODE(status.st_mode), dir_fd=target)
    ours, theirs = f"/proc/self/fd/{source}/{path}", f"/proc/self/fd/{target}/{path}"
    for name in os.listxattr(ours, follow_symlinks=False):
        os.setxattr(theirs, name, os.getxattr(ours, name, follow_symlinks=False), follow_symlinks=False)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=target, follow_symlinks=False)
