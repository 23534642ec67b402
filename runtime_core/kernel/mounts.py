"""Mounts by descriptor: file systems, overlays and clones that are attached only when complete. Cold.

Every function returns the descriptor of a detached mount; `attach` puts it on an O_PATH
descriptor, never on a path that somebody could have swapped.
"""

from __future__ import annotations

import errno
import os

from runtime_core.kernel import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_RECURSIVE = syscalls.AT_EMPTY_PATH | syscalls.AT_RECURSIVE


def filesystem(fstype: str, options: Iterable[str] = (), attributes: int = 0, source: str = "") -> int:
    """A new file system of `fstype` with options such as "size=64m" or "newinstance"."""
    context = syscalls.fsopen(fstype)
    try:
        if source:
            syscalls.fsconfig_string(context, "source", source)
        for option in options:
            key, equals, value = option.partition("=")
            if equals:
                syscalls.fsconfig_string(context, key, value)
            else:
                syscalls.fsconfig_flag(context, key)
        syscalls.fsconfig_create(context)
        return syscalls.fsmount(context, attributes)
    except OSError as error:
        raise _with_reason(context, error) from error
    finally:
        os.close(context)


def overlay(lower: Iterable[str | int], upper: str | int = "", work: str | int = "", attributes: int = 0) -> int:
    """An overlay of `lower`, highest layer first (kernel doc filesystems/overlayfs). A layer may be
    an O_PATH descriptor, for instance one of a detached mount; before Linux 6.13 that is EINVAL or EBADF."""
    context = syscalls.fsopen("overlay")
    try:
        syscalls.fsconfig_string(context, "source", "overlay")
        for layer in lower:
            _set_layer(context, "lowerdir+", layer)
        if upper:
            _set_layer(context, "upperdir", upper)
            _set_layer(context, "workdir", work)
        syscalls.fsconfig_create(context)
        return syscalls.fsmount(context, attributes)
    except OSError as error:
        raise _with_reason(context, error) from error
    finally:
        os.close(context)


def _set_layer(context: int, key: str, layer: str | int) -> None:
    if isinstance(layer, str):
        syscalls.fsconfig_string(context, key, layer)
    else:
        syscalls.fsconfig_fd(context, key, layer)


def _with_reason(context: int, error: OSError) -> OSError:
    """The same error with what the file system itself says (fsconfig(2), "log"), when it says something."""
    try:
        said = os.read(context, 512).decode(errors="replace").strip()
    except OSError:
        return error  # ENODATA: nothing
    return OSError(error.errno, f"{error.strerror} ({said.removeprefix('e ')})", error.filename)


def clone(path: str, *, recursive: bool = False, directory: int = syscalls.AT_FDCWD) -> int:
    """A detached copy of what is mounted at `path` (a bind mount that is not attached yet)."""
    flags = syscalls.OPEN_TREE_CLONE
    if recursive:
        flags |= syscalls.AT_RECURSIVE
    if not path:
        flags |= syscalls.AT_EMPTY_PATH
    return syscalls.open_tree(directory, path, flags)


def bind(path: str, *, recursive: bool = False) -> int:
    """A clone that no longer exchanges mounts with where it came from."""
    tree = clone(path, recursive=recursive)
    syscalls.mount_setattr(tree, flags=_RECURSIVE, propagation=syscalls.MS_PRIVATE)
    return tree


def tmpfs(options: Iterable[str] = (), attributes: int = 0) -> int:
    """Descriptor of a new, detached tmpfs with options such as "mode=755"."""
    return filesystem("tmpfs", options, attributes, "tmpfs")


def idmap(tree: int, user_namespace: int, *, recursive: bool = False) -> None:
    """Show the owners in a detached `tree` as `user_namespace` maps them (mount_setattr(2))."""
    flags = _RECURSIVE if recursive else syscalls.AT_EMPTY_PATH
    syscalls.mount_setattr(tree, flags=flags, attr_set=syscalls.MOUNT_ATTR_IDMAP, userns_fd=user_namespace)


def attach(mount: int, target: int) -> None:
    """Put the detached `mount` on the O_PATH descriptor `target`."""
    syscalls.move_mount(mount, target)


def mount_points(mountinfo: bytes) -> list[str]:
    """Mount points of a /proc/PID/mountinfo (proc(5)), in its order."""
    found = []
    for line in mountinfo.splitlines():
        field = line.split(b" ", 5)[4]
        if b"\\" in field:
            field = field.replace(b"\\040", b" ").replace(b"\\011", b"\t")
            field = field.replace(b"\\012", b"\n").replace(b"\\134", b"\\")
        found.append(os.fsdecode(field))
    return found


def current_mount_points() -> list[str]:
    """Mount points of this process."""
    with open("/proc/self/mountinfo", "rb") as file:
        return mount_points(file.read())


def mounted_below(prefix: str) -> list[str]:
    """Those of `current_mount_points` at or below the directory `prefix`."""
    return [point for point in current_mount_points() if point == prefix or point.startswith(prefix.rstrip("/") + "/")]


def unmount_below(prefix: str) -> None:
    """Detach every mount at or below `prefix`, deepest first. Idempotent."""
    for point in reversed(mounted_below(prefix)):
        try:
            syscalls.umount2(point, syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EINVAL):  # gone meanwhile
                raise
