"""Paths that somebody hostile may have prepared: opened and made by descriptor, inside a root.

openat2(2) with RESOLVE_IN_ROOT treats the root descriptor as "/", so neither "..", nor an
absolute symlink, nor a rename race leads out of it; magic links are refused. Cold.
"""

from __future__ import annotations

import errno
import os
import stat

from runtime_core.errors import FailedPrecondition, InvalidArgument, from_oserror
from runtime_core.kernel import syscalls

_IN_ROOT = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
_RACES = 32  # EAGAIN: something was renamed under the walk


def make_private_directory(path: str, field: str) -> None:
    """Root's alone, also one that somebody else made too open; the error names `field`."""
    try:
        os.makedirs(path, 0o700, exist_ok=True)
        os.chmod(path, 0o700)
    except OSError as error:
        raise from_oserror(error, field) from error


def open_in_root(root: int, path: str, flags: int, mode: int = 0) -> int:
    """A descriptor of `path` below the directory `root`; OSError as from open(2)."""
    for _attempt in range(_RACES):
        try:
            return syscalls.openat2(root, path.lstrip("/") or ".", flags, mode, _IN_ROOT)
        except BlockingIOError:
            continue
    raise FailedPrecondition(f"{path!r} keeps changing while it is resolved")


def make_directories(root: int, path: str, mode: int = 0o755) -> int:
    """O_PATH descriptor of the directory `path` below `root`, made component by component."""
    current = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
    walked = ""
    for name in filter(None, path.split("/")):
        if name == "..":
            os.close(current)
            raise InvalidArgument(f"{path!r} must not contain '..'")
        walked += "/" + name
        try:
            following = _enter(root, current, name, walked, mode)
        finally:
            os.close(current)
        current = following
    return current


def _enter(root: int, parent: int, name: str, walked: str, mode: int) -> int:
    """Open `walked`, following symlinks within the root; make it in `parent` when it is missing."""
    flags = os.O_PATH | os.O_DIRECTORY
    try:
        return open_in_root(root, walked, flags)
    except FileNotFoundError:
        try:
            os.mkdir(name, mode, dir_fd=parent)
        except FileExistsError:
            pass  # a dangling symlink, which the next open refuses, or a race that made what we want
    return open_in_root(root, walked, flags)


def make_file(root: int, path: str, mode: int = 0o644) -> int:
    """O_PATH descriptor of the file `path` below `root`, made empty when it is missing."""
    try:
        return open_in_root(root, path, os.O_PATH)
    except FileNotFoundError:
        pass
    head, _, name = path.rstrip("/").rpartition("/")
    parent = make_directories(root, head)
    try:
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=parent))
    except FileExistsError:
        pass
    finally:
        os.close(parent)
    return open_in_root(root, path, os.O_PATH)


def read_bounded(descriptor: int, limit: int, what: str) -> bytes:
    """All of a regular file, InvalidArgument when it is none or larger than `limit` bytes."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise InvalidArgument(f"{what} is not a regular file")
    content = b""
    while len(content) <= limit:
        chunk = os.read(descriptor, limit + 1 - len(content))
        if not chunk:
            return content
        content += chunk
    raise InvalidArgument(f"{what} is larger than {limit} bytes")


def is_missing(error: OSError) -> bool:
    return error.errno in (errno.ENOENT, errno.ENOTDIR)


def sync_directory(path: str) -> None:
    """fsync(2) of a directory: the names in it are durable, not what they name."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
