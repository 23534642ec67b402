"""Paths that somebody hostile may have prepared: opened and made by descriptor, inside a root.

openat2(2) with RESOLVE_IN_ROOT treats the root descriptor as "/", so neither "..", nor an
absolute symlink, nor a rename race leads out of it; magic links are refused. Cold.
"""

from __future__ import annotations

import errno
import os
import stat

from runtime_core.errors import FailedPrecondition, InvalidArgument, TrivetError, from_oserror
from runtime_core.kernel import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    #: makes the name (str) in the directory of the descriptor (int)
    Make = Callable[[str, int], None]

_IN_ROOT = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
_RACES = 32  # EAGAIN: something was renamed under the walk
_DIRECTORY = os.O_PATH | os.O_DIRECTORY
_MOST_LINKS = 40  # as many as the kernel follows on one path (path_resolution(7))
_WRONG = {
    errno.ENOTDIR: "a part of it is not a directory",
    errno.ELOOP: "its symbolic links lead in a circle, or through procfs",
    errno.ENAMETOOLONG: "it is too long",
    errno.EISDIR: "it is a directory",
    errno.EINVAL: "it cannot be a path there",
    errno.EOPNOTSUPP: "it is missing, and nothing can be made in its file system",
    errno.EROFS: "it is missing, and cannot be made in a read-only file system",
}


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
    """O_PATH descriptor of the directory `path` below `root`, made component by component.

    A symbolic link that leads nowhere is followed within `root`, and what it names is made. OSError as from
    open(2); `wrong_path` says it in words.
    """
    make = _directory_maker(mode)
    return _open_or_make(root, path, _DIRECTORY, make, make)


def make_file(root: int, path: str, mode: int = 0o644) -> int:
    """O_PATH descriptor of the file `path` below `root`, made empty when it is missing; else as `make_directories`."""

    def make(name: str, parent: int) -> None:
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=parent))

    return open_or_make(root, path, make)


def open_or_make(root: int, path: str, make: Make) -> int:
    """O_PATH descriptor of what `path` leads to below `root`, made by `make` when it is missing; its directories as ever."""
    return _open_or_make(root, path, os.O_PATH, make, _directory_maker(0o755))


def _directory_maker(mode: int) -> Make:
    def make(name: str, parent: int) -> None:
        try:
            os.mkdir(name, mode, dir_fd=parent)
        except OSError as error:
            # So says a file system of the kernel's own, such as procfs, whose directories nobody makes (mkdir(2)).
            if error.errno in (errno.ENOENT, errno.EPERM):
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), name) from error
            raise

    return make


def _open_or_make(root: int, path: str, flags: int, make: Make, make_parent: Make) -> int:
    names = _names(path)
    if ".." in names:
        raise InvalidArgument(f"{path!r} must not contain '..'")
    try:
        return open_in_root(root, path, flags)
    except FileNotFoundError:
        return _walk(root, names, flags, make, make_parent)


def _walk(root: int, names: list[str], flags: int, make: Make, make_parent: Make) -> int:
    """Step by step: the kernel follows every link that leads somewhere, and this one those that lead nowhere."""
    current, walked, links = _open_directory(root), "", 0
    try:
        while names:
            name = names.pop(0)
            here = f"{walked}/{name}"
            step = (_DIRECTORY, make_parent) if names else (flags, make)
            found = _enter(root, here, current, name, *step)
            if isinstance(found, str):
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), here)
                names[:0] = _names(found)
                if not found.startswith("/"):
                    continue
                found, here = _open_directory(root), ""
            os.close(current)
            current, walked = found, here
    except BaseException:
        os.close(current)
        raise
    return current


def _enter(root: int, here: str, parent: int, name: str, flags: int, make: Make) -> int | str:
    """Descriptor of `here`, made in `parent` when it is missing; or where the link leads that it is."""
    try:
        return open_in_root(root, here, flags)
    except FileNotFoundError:
        pass
    try:
        make(name, parent)
    except FileExistsError:
        try:
            return os.readlink(name, dir_fd=parent)
        except OSError as error:
            if error.errno != errno.EINVAL:  # somebody else has made it meanwhile
                raise
    return open_in_root(root, here, flags)


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in ("", ".")]


def _open_directory(directory: int) -> int:
    return os.open(".", _DIRECTORY | os.O_CLOEXEC, dir_fd=directory)


def wrong_path(error: OSError, what: str) -> TrivetError:
    """InvalidArgument where the path of `what` is itself the mistake, as far as an errno tells; else as from_oserror."""
    reason = _WRONG.get(error.errno or 0)
    return InvalidArgument(f"{what}: {reason}") if reason else from_oserror(error, what)


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
    """Whether a path does not exist: ENOENT or ENOTDIR."""
    return error.errno in (errno.ENOENT, errno.ENOTDIR)


def sync_directory(path: str) -> None:
    """fsync(2) of a directory: the names in it are durable, not what they name."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
