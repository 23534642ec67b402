"""A container's file tree, built in its own mount namespace from descriptors alone.

Theory of operation. The root file system is mounted detached, attached to an empty
directory, and everything else is attached below it through O_PATH descriptors that were
opened with openat2(RESOLVE_IN_ROOT): whatever the image or a volume holds, a target
never leaves the root. Sources of bind mounts are cloned before the old root goes away.
Since all of it exists only in this namespace, nothing is left when the container ends.
"""

from __future__ import annotations

import os
import stat

from runtime_core.errors import FailedPrecondition, InvalidArgument, NotFound
from runtime_core.kernel import mounts, paths, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SET = {
    "ro": syscalls.MOUNT_ATTR_RDONLY,
    "nosuid": syscalls.MOUNT_ATTR_NOSUID,
    "nodev": syscalls.MOUNT_ATTR_NODEV,
    "noexec": syscalls.MOUNT_ATTR_NOEXEC,
    "noatime": syscalls.MOUNT_ATTR_NOATIME,
    "strictatime": syscalls.MOUNT_ATTR_STRICTATIME,
    "nodiratime": syscalls.MOUNT_ATTR_NODIRATIME,
    "nosymfollow": syscalls.MOUNT_ATTR_NOSYMFOLLOW,
}
_CLEAR = {
    "rw": syscalls.MOUNT_ATTR_RDONLY,
    "suid": syscalls.MOUNT_ATTR_NOSUID,
    "dev": syscalls.MOUNT_ATTR_NODEV,
    "exec": syscalls.MOUNT_ATTR_NOEXEC,
}
_PROPAGATION = {
    "private": syscalls.MS_PRIVATE,
    "slave": syscalls.MS_SLAVE,
    "shared": syscalls.MS_SHARED,
    "unbindable": syscalls.MS_UNBINDABLE,
}
_IGNORED = {"bind", "rbind", "relatime", "defaults", "async", "norelatime"}
_DEFAULT_DEVICES = (
    ("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0),
)  # fmt: skip
_LINKS = (
    ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"), ("ptmx", "pts/ptmx"),
)  # fmt: skip
_ATIME = syscalls.MOUNT_ATTR_NOATIME | syscalls.MOUNT_ATTR_STRICTATIME


class Options:
    """Mount options of the OCI runtime spec, sorted by what the kernel wants of them."""

    __slots__ = ("attributes", "cleared", "data", "is_recursive", "propagation", "recursive_attributes")

    def __init__(self, options: list[str], field: str) -> None:
        self.attributes = self.cleared = self.recursive_attributes = 0
        self.propagation: tuple[int, bool] = (0, False)
        self.data: list[str] = []
        self.is_recursive = "rbind" in options
        for option in options:
            self._take(option, field)

    def _take(self, option: str, field: str) -> None:
        recursive = option[:1] == "r" and option[1:] in _SET or option[1:] in _PROPAGATION
        if option in _SET:
            self.attributes |= _SET[option]
        elif option in _CLEAR:
            self.cleared |= _CLEAR[option]
        elif option in _PROPAGATION:
            self.propagation = (_PROPAGATION[option], False)
        elif recursive and option[1:] in _PROPAGATION:
            self.propagation = (_PROPAGATION[option[1:]], True)
        elif recursive:
            self.recursive_attributes |= _SET[option[1:]]
        elif option in ("idmap", "ridmap"):
            raise InvalidArgument(f"{field}: option {option!r} needs a user namespace")
        elif option not in _IGNORED:
            self.data.append(option)


def enter(root: dict[str, Any], spec: dict[str, Any], null: int) -> None:
    """Build the tree that `spec` describes on the root mount and make it this process's root.

    `null` is a descriptor of the host's /dev/null, checked by `host_null`.
    """
    directory = spec["root"]["path"]
    os.chdir("/")
    propagate(spec["linux"].get("rootfsPropagation") or "rslave", directory)
    base = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    mounts.attach(_root_mount(root), base)
    os.close(base)
    root_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for number, mount in enumerate(spec.get("mounts") or ()):
        _mount(root_fd, mount, f"mounts[{number}]")
    _populate_dev(root_fd, spec)
    _make_working_directory(root_fd, spec)
    _hide(root_fd, spec["linux"], null)
    if spec["root"].get("readonly"):
        syscalls.mount_setattr(root_fd, attr_set=syscalls.MOUNT_ATTR_RDONLY)
    _pivot(root_fd)


def host_null() -> int:
    """The host's /dev/null, which masks files: verified to be that device (CVE-2025-31133)."""
    descriptor = os.open("/dev/null", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    status = os.fstat(descriptor)
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != os.makedev(1, 3):
        raise FailedPrecondition("/dev/null of the host is not the null device")
    return descriptor


def propagate(mode: str, directory: str) -> None:
    """Cut this namespace off from the host, or leave it connected where a mount must reach the host."""
    recursive = mode.startswith("r") and mode[1:] in _PROPAGATION
    flags = _PROPAGATION.get(mode[1:] if recursive else mode)
    if flags is None:
        raise InvalidArgument(f"linux.rootfsPropagation: unknown mode {mode!r}")
    syscalls.mount("", "/", "", flags | syscalls.MS_REC)
    if flags == syscalls.MS_SHARED:
        # The root itself must not appear on the host: the mount below it goes private.
        parent = max((p for p in mounts.mounted() if _is_below(directory, p)), key=len)
        syscalls.mount("", parent, "", syscalls.MS_PRIVATE)


def _is_below(path: str, parent: str) -> bool:
    return parent == "/" or path == parent or path.startswith(parent + "/")


def _root_mount(root: dict[str, Any]) -> int:
    if root["type"] == "overlay":
        return mounts.overlay(list(root["lower"]), root["upper"], root["work"])
    return mounts.clone(root["source"], recursive=True)


def _mount(root: int, mount: dict[str, Any], field: str) -> None:
    destination, kind = mount["destination"], mount.get("type") or "bind"
    options = Options(list(mount.get("options") or ()), field)
    _refuse_over_proc(destination, kind)
    if kind in ("bind", "none") or "bind" in (mount.get("options") or ()) or options.is_recursive:
        _bind(root, mount["source"], destination, options, field)
    elif kind == "cgroup":
        _mount_cgroups(root, destination, options)
    else:
        tree = mounts.filesystem(kind, options.data, options.attributes, mount.get("source") or kind)
        _attach(root, tree, destination, options, is_directory=True)


def _refuse_over_proc(destination: str, kind: str) -> None:
    parts = [part for part in destination.split("/") if part and part != "."]
    if parts == ["proc"] and kind != "proc":
        raise InvalidArgument(f"a mount over {destination!r} would hide procfs (CVE-2019-16884)")


def _bind(root: int, source: str, destination: str, options: Options, field: str) -> None:
    try:
        tree = mounts.clone(source, recursive=options.is_recursive)
    except FileNotFoundError:
        raise NotFound(f"{field}.source: {source!r} does not exist") from None
    is_directory = stat.S_ISDIR(os.fstat(tree).st_mode)
    if options.attributes or options.cleared:
        cleared = options.cleared
        if options.attributes & _ATIME:
            cleared |= syscalls.MOUNT_ATTR__ATIME
        syscalls.mount_setattr(tree, attr_set=options.attributes, attr_clr=cleared & ~options.attributes)
    _attach(root, tree, destination, options, is_directory=is_directory)


def _attach(root: int, tree: int, destination: str, options: Options, *, is_directory: bool) -> None:
    target = _target(root, destination, is_directory=is_directory)
    try:
        if options.recursive_attributes:
            flags = syscalls.AT_EMPTY_PATH | syscalls.AT_RECURSIVE
            syscalls.mount_setattr(tree, flags=flags, attr_set=options.recursive_attributes)
        mounts.attach(tree, target)
        kind, recursive = options.propagation
        if kind:
            flags = syscalls.AT_EMPTY_PATH | (syscalls.AT_RECURSIVE if recursive else 0)
            syscalls.mount_setattr(tree, flags=flags, propagation=kind)
    finally:
        os.close(tree)
        os.close(target)


def _target(root: int, destination: str, *, is_directory: bool) -> int:
    if not is_directory:
        return paths.make_file(root, destination)
    target = paths.make_directories(root, destination)
    if destination.strip("/") in ("proc", "sys"):
        # A symlinked /proc or /sys in the image must not redirect the mount (CVE-2019-19921).
        os.close(target)
        return syscalls.openat2(
            root, destination.strip("/"), os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, 0, syscalls.RESOLVE_NO_SYMLINKS
        )
    return target


def _mount_cgroups(root: int, destination: str, options: Options) -> None:
    """/sys/fs/cgroup as the cgroup namespace shows it: one mount (v2) or one per controller (v1)."""
    with open("/proc/self/cgroup") as file:
        hierarchies = [line.rstrip("\n").split(":", 2)[1] for line in file]
    if hierarchies == [""]:
        tree = mounts.filesystem("cgroup2", (), options.attributes, "cgroup")
        _attach(root, tree, destination, options, is_directory=True)
        return
    base = mounts.filesystem("tmpfs", ("mode=755",), options.attributes & ~syscalls.MOUNT_ATTR_RDONLY)
    _attach(root, base, destination, Options([], ""), is_directory=True)
    for controllers in filter(None, hierarchies):
        name = controllers.removeprefix("name=")
        tree = mounts.filesystem("cgroup", controllers.split(","), options.attributes, "cgroup")
        _attach(root, tree, f"{destination}/{name}", Options([], ""), is_directory=True)
        for alias in name.split(",") if "," in name else ():
            directory = paths.make_directories(root, destination)
            os.symlink(name, alias, dir_fd=directory)
            os.close(directory)
    if options.attributes & syscalls.MOUNT_ATTR_RDONLY:
        target = paths.open_in_root(root, destination, os.O_PATH | os.O_DIRECTORY)
        syscalls.mount_setattr(target, attr_set=syscalls.MOUNT_ATTR_RDONLY)
        os.close(target)


def _populate_dev(root: int, spec: dict[str, Any]) -> None:
    """Default and configured devices, on a /dev that is our own tmpfs and never the image's directory."""
    if not any(m["destination"].rstrip("/") == "/dev" and m.get("type") == "tmpfs" for m in spec.get("mounts") or ()):
        return
    dev = paths.open_in_root(root, "/dev", os.O_RDONLY | os.O_DIRECTORY)
    for name, major, minor in _DEFAULT_DEVICES:
        _make_node(dev, name, stat.S_IFCHR | 0o666, os.makedev(major, minor), 0, 0)
    for device in spec["linux"].get("devices") or ():
        _make_device(root, device)
    for name, target in _LINKS:
        os.symlink(target, name, dir_fd=dev)
    os.close(dev)


def _make_device(root: int, device: dict[str, Any]) -> None:
    head, _, name = device["path"].rpartition("/")
    kind = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}.get(device["type"])
    if kind is None:
        raise InvalidArgument(f"linux.devices: {device['path']!r} has unknown type {device['type']!r}")
    parent = paths.make_directories(root, head)
    number = os.makedev(device.get("major", 0), device.get("minor", 0))
    mode = kind | (device.get("fileMode") or 0o666) & 0o7777
    directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent)
    os.close(parent)
    _make_node(directory, name, mode, number, device.get("uid") or 0, device.get("gid") or 0)
    os.close(directory)


def _make_node(directory: int, name: str, mode: int, number: int, uid: int, gid: int) -> None:
    try:
        os.mknod(name, mode, number, dir_fd=directory)
    except FileExistsError:
        return  # a device of the same name was asked for twice, or bound there by a mount
    node = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    os.chmod(f"/proc/self/fd/{node}", mode & 0o7777)  # mknod obeys the umask
    os.chown(f"/proc/self/fd/{node}", uid, gid)
    os.close(node)


def _make_working_directory(root: int, spec: dict[str, Any]) -> None:
    directory = spec["process"].get("cwd") or "/"
    try:
        os.close(paths.open_in_root(root, directory, os.O_PATH | os.O_DIRECTORY))
    except FileNotFoundError:
        os.close(paths.make_directories(root, directory))


def _hide(root: int, linux: dict[str, Any], null: int) -> None:
    for path in linux.get("maskedPaths") or ():
        target = _existing(root, path)
        if target < 0:
            continue
        if stat.S_ISDIR(os.fstat(target).st_mode):
            tree = mounts.filesystem("tmpfs", ("size=0", "mode=755"), syscalls.MOUNT_ATTR_RDONLY)
        else:
            tree = mounts.clone("", directory=null)
        mounts.attach(tree, target)
        os.close(tree)
        os.close(target)
    for path in linux.get("readonlyPaths") or ():
        target = _existing(root, path)
        if target < 0:
            continue
        tree = mounts.clone("", directory=target, recursive=True)
        flags = syscalls.AT_EMPTY_PATH | syscalls.AT_RECURSIVE
        syscalls.mount_setattr(tree, flags=flags, attr_set=syscalls.MOUNT_ATTR_RDONLY)
        mounts.attach(tree, target)
        os.close(tree)
        os.close(target)


def _existing(root: int, path: str) -> int:
    try:
        return paths.open_in_root(root, path, os.O_PATH)
    except OSError as error:
        if paths.is_missing(error):
            return -1
        raise


def _pivot(root: int) -> None:
    os.fchdir(root)
    os.close(root)
    syscalls.pivot_root(".", ".")
    # The old root lies under the new one now. Its unmounting must not travel back to the host.
    syscalls.mount("", ".", "", syscalls.MS_SLAVE | syscalls.MS_REC)
    syscalls.umount2(".", syscalls.MNT_DETACH)
    os.chdir("/")
