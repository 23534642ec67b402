"""A container's file tree, built in its own mount namespace from descriptors alone.

Theory of operation. First, with the host's privileges and its view of paths, everything
that comes from the host is cloned or mounted detached (`gather`). Then, in the container's
own namespaces, the root is put on top of "/", and each mount on a descriptor below it that
openat2(RESOLVE_IN_ROOT) found: whatever the image or a volume holds, a target never leaves
the root (`enter`). All of it exists only in this namespace, so nothing is left when the
container ends; and the old tree is private or slave before the first mount, so nothing
reaches the host.
"""

from __future__ import annotations

import errno
import os
import stat

from runtime_core.container import cgroup_mounts, devices, root_mount
from runtime_core.container.mount_options import Options, propagation
from runtime_core.errors import FailedPrecondition, InvalidArgument, NotFound, from_oserror
from runtime_core.kernel import mounts, paths, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_RECURSIVE = syscalls.AT_EMPTY_PATH | syscalls.AT_RECURSIVE
_REAL = ("/proc", "/sys")  # where the image must have a directory, and nothing that leads to one
#: Files below /proc that may be mounted over: what lxcfs provides.
_PROC_FILES = frozenset(
    f"/proc/{name}" for name in ("cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo")
)


class Mount:
    """One entry of `mounts`, and its detached tree once there is one."""

    __slots__ = ("destination", "field", "is_directory", "kind", "options", "source", "tree")

    def __init__(self, entry: dict[str, Any], field: str) -> None:
        destination = entry.get("destination") or ""
        # runc takes a relative destination as one below "/", and old specs rely on it.
        self.destination = "/" + "/".join(part for part in destination.split("/") if part not in ("", "."))
        if not destination or ".." in self.destination.split("/"):
            raise InvalidArgument(f"{field}.destination: {destination!r} is not a path without '..'")
        self.field = field
        self.options = Options(list(entry.get("options") or ()), field)
        self.kind = entry.get("type") or ("bind" if self.options.is_bind else "")
        if self.options.is_bind or self.kind in ("", "none"):
            self.kind = "bind"
        self.source = entry.get("source") or ""
        if entry.get("uidMappings") or entry.get("gidMappings"):
            self.options.is_idmapped = True
        self.tree = -1
        self.is_directory = True

    def describe(self, part: str = "") -> str:
        """The field, or its `part`, with both paths: how an error about this mount begins."""
        source = f"from {self.source!r}" if self.kind == "bind" else f"of {self.kind}"
        return f"{self.field}{part}: mounting {self.destination!r} {source}"


class Tree:
    """The result of `prepare_mounts`: detached mounts of the root, of bind mounts and of /dev."""

    __slots__ = ("mounts", "root", "sysfs")

    def __init__(self, root: int, found: list[Mount], sysfs: int) -> None:
        self.root, self.mounts, self.sysfs = root, found, sysfs


def prepare_mounts(root: dict[str, Any], spec: dict[str, Any], user_namespace: int = -1) -> Tree:
    """Clone and mount, detached, what needs the host's privileges: the root, bind mounts, /dev."""
    found = [Mount(entry, f"mounts[{number}]") for number, entry in enumerate(spec.get("mounts") or ())]
    try:
        base = root_mount.mount(root, user_namespace)
    except OSError as error:
        raise from_oserror(error, f"mounting the root file system ({root['type']})") from error
    for mount in found:
        try:
            if mount.kind == "bind":
                _clone(mount, user_namespace)
            elif mount.kind == "tmpfs" and mount.destination == "/dev":
                _make_dev(mount, spec, user_namespace)
        except OSError as error:
            raise from_oserror(error, mount.describe()) from error
    sysfs = mounts.bind("/sys", recursive=True) if user_namespace >= 0 else -1
    return Tree(base, found, sysfs)


def enter_root(tree: Tree, spec: dict[str, Any], null: int, join_cgroups: Callable[[], None]) -> None:
    """Attach `tree` and what belongs to the container's own namespaces, and make it this process's root.

    `null` is a descriptor of the host's /dev/null, checked by `host_null`. `join_cgroups` is called
    as late as possible: from then on this process counts against the container's memory limit.
    """
    mode = propagation(spec["linux"].get("rootfsPropagation") or "")
    root = attach_root(tree.root)
    has_joined = False
    for mount in tree.mounts:
        if mount.kind in ("cgroup", "cgroup2") and not has_joined:
            join_cgroups()  # its mounts show the cgroup namespace, whose root must be the container's cgroup
            has_joined = True
        try:
            _mount(root, mount, tree.sysfs)
        except OSError as error:
            raise from_oserror(error, mount.describe()) from error
    if not any(mount.destination == "/dev" for mount in tree.mounts):
        _populate_image_dev(root, spec)
    devices.populate_elsewhere(root, spec["linux"].get("devices") or [])
    _make_working_directory(root, spec["process"].get("cwd") or "/")
    _mask_paths(root, spec["linux"], null)
    if spec.get("root", {}).get("readonly"):
        syscalls.mount_setattr(root, attr_set=syscalls.MOUNT_ATTR_RDONLY)
    if not has_joined:
        join_cgroups()
    pivot(root)
    if mode != syscalls.MS_PRIVATE:
        syscalls.mount("", "/", "", mode)  # of the root alone: each volume has its own


def host_null() -> int:
    """The host's /dev/null, which masks files: verified to be that device (CVE-2025-31133)."""
    descriptor = os.open("/dev/null", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    status = os.fstat(descriptor)
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != os.makedev(1, 3):
        raise FailedPrecondition("/dev/null of the host is not the null device")
    return descriptor


def _clone(mount: Mount, user_namespace: int) -> None:
    options = mount.options
    if not mount.source.startswith("/"):
        raise InvalidArgument(f"{mount.field}.source: {mount.source!r} is not an absolute path")
    try:
        mount.tree = mounts.clone(mount.source, recursive=options.is_recursive)
    except FileNotFoundError:
        raise NotFound(f"{mount.field}.source: {mount.source!r} does not exist") from None
    except OSError as error:
        raise paths.wrong_path(error, f"{mount.field}.source: {mount.source!r}") from error
    mount.is_directory = stat.S_ISDIR(os.fstat(mount.tree).st_mode)
    # The clone is still a peer of the host's mount: without an option it becomes private, whatever that was.
    recursive = options.recursive_propagation or (0 if options.propagation else syscalls.MS_PRIVATE)
    if recursive or options.recursive_attributes or options.recursive_cleared:
        syscalls.mount_setattr(
            mount.tree, flags=_RECURSIVE, propagation=recursive,
            attr_set=options.recursive_attributes, attr_clr=options.recursive_cleared,
        )  # fmt: skip
    if options.attributes or options.cleared or options.propagation:
        syscalls.mount_setattr(mount.tree, attr_set=options.attributes, attr_clr=options.cleared, propagation=options.propagation)
    if options.is_idmapped:
        if user_namespace < 0:
            raise InvalidArgument(f"{mount.field}: an idmapped mount needs a user namespace")
        mounts.idmap(mount.tree, user_namespace, recursive=options.is_recursive)


def _make_dev(mount: Mount, spec: dict[str, Any], user_namespace: int) -> None:
    """/dev as a tmpfs with its devices, made where mknod(2) is allowed, and never in the image's directory."""
    mount.tree = mounts.filesystem("tmpfs", mount.options.data, mount.options.attributes, "tmpfs")
    devices.populate(mount.tree, spec["linux"].get("devices") or [])
    if user_namespace >= 0:
        mounts.idmap(mount.tree, user_namespace)


def attach_root(tree: int) -> int:
    """Put the root on top of "/", cut off from the host; its descriptor as a directory."""
    os.chdir("/")
    syscalls.mount("", "/", "", syscalls.MS_SLAVE | syscalls.MS_REC)
    syscalls.mount("", "/", "", syscalls.MS_PRIVATE)
    top = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    mounts.attach(tree, top)
    os.close(top)
    return tree


def _mount(root: int, mount: Mount, sysfs: int) -> None:
    target = _target(root, mount)
    try:
        if mount.kind in ("cgroup", "cgroup2"):
            cgroup_mounts.mount(target, mount.options)
            return
        if mount.tree < 0:
            mount.tree = _own_filesystem(mount, sysfs)
        mounts.attach(mount.tree, target)
    finally:
        os.close(target)
        if mount.tree >= 0:
            os.close(mount.tree)
            mount.tree = -1


def _own_filesystem(mount: Mount, sysfs: int) -> int:
    """A new file system that belongs to this process's namespaces."""
    options = mount.options
    try:
        return mounts.filesystem(mount.kind, options.data, options.attributes, mount.source or mount.kind)
    except PermissionError:
        if mount.kind != "sysfs" or sysfs < 0:
            raise
    # In a user namespace that does not own the network namespace the host's /sys serves, read-only.
    syscalls.mount_setattr(sysfs, flags=_RECURSIVE, attr_set=options.attributes | syscalls.MOUNT_ATTR_RDONLY)
    return sysfs


def _target(root: int, mount: Mount) -> int:
    """O_PATH descriptor of where the mount goes, made when it is missing."""
    make = paths.make_directories if mount.is_directory else paths.make_file
    try:
        target = _plain_directory(root, mount) if mount.destination in _REAL else make(root, mount.destination)
    except OSError as error:
        raise paths.wrong_path(error, mount.describe(".destination")) from error
    try:
        _check_target(root, mount, target)
    except BaseException:
        os.close(target)
        raise
    return target


def _check_target(root: int, mount: Mount, target: int) -> None:
    there, where = os.fstat(target), mount.describe(".destination")
    if os.path.samestat(there, os.fstat(root)):
        raise InvalidArgument(f"{where}: it is the root itself")
    if stat.S_ISDIR(there.st_mode) != mount.is_directory:
        kinds = ("directory", "file") if mount.is_directory else ("file", "directory")
        raise InvalidArgument(f"{where}: a {kinds[0]} cannot be mounted on a {kinds[1]}")
    if mount.destination == "/proc" or mount.destination in _PROC_FILES:
        return
    if syscalls.filesystem_type(target) == syscalls.PROC_SUPER_MAGIC:
        raise InvalidArgument(f"{where}: it is within procfs")


def _plain_directory(root: int, mount: Mount) -> int:
    """/proc or /sys: a symlink in the image must not redirect the mount (CVE-2019-19921), and only the
    real thing may be there, lest LSM labels and sysctls are written to a fake (CVE-2019-16884)."""
    if mount.destination == "/proc" and not _is_procfs(mount):
        raise InvalidArgument(f"{mount.describe('.destination')}: only procfs may be there")
    name = mount.destination[1:]
    try:
        os.mkdir(name, 0o755, dir_fd=root)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.EROFS):  # there, or the next call says so
            raise
    try:
        return syscalls.openat2(
            root, name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, 0,
            syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_SYMLINKS,
        )  # fmt: skip
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise InvalidArgument(f"{mount.destination!r} of the image is not a real directory") from None
        raise


def _is_procfs(mount: Mount) -> bool:
    if mount.kind == "bind":
        return syscalls.filesystem_type(mount.tree) == syscalls.PROC_SUPER_MAGIC
    return mount.kind == "proc"


def _populate_image_dev(root: int, spec: dict[str, Any]) -> None:
    """Without a mount at /dev the devices go into the image's own, which must not be a symlink (CVE-2026-41579)."""
    flags = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_SYMLINKS
    try:
        os.close(paths.make_directories(root, "dev"))
        directory = syscalls.openat2(root, "dev", os.O_RDONLY | os.O_DIRECTORY, 0, flags)
    except OSError as error:
        raise InvalidArgument("'/dev' of the image is not a real directory") from error
    devices.populate(directory, spec["linux"].get("devices") or [])
    os.close(directory)


def _make_working_directory(root: int, directory: str) -> None:
    try:
        try:
            os.close(paths.open_in_root(root, directory, os.O_PATH | os.O_DIRECTORY))
        except FileNotFoundError:
            os.close(paths.make_directories(root, directory))
    except OSError as error:
        raise paths.wrong_path(error, f"process.cwd: {directory!r}") from error


def _mask_paths(root: int, linux: dict[str, Any], null: int) -> None:
    for field, hide in (
        ("linux.maskedPaths", lambda target: _mask_path(target, null)),
        ("linux.readonlyPaths", _make_read_only),
    ):
        for path in linux.get(field.removeprefix("linux.")) or ():
            _at_existing(root, path, f"{field}: {path!r}", hide)


def _at_existing(root: int, path: str, what: str, hide: Callable[[int], None]) -> None:
    """`hide` what `path` leads to; when that is nothing there is nothing to hide."""
    try:
        target = paths.open_in_root(root, path, os.O_PATH)
    except OSError as error:
        if paths.is_missing(error):
            return
        raise paths.wrong_path(error, what) from error
    try:
        if os.path.samestat(os.fstat(target), os.fstat(root)):
            raise InvalidArgument(f"{what}: it is the root itself")
        hide(target)
    except OSError as error:
        raise from_oserror(error, what) from error
    finally:
        os.close(target)


def _mask_path(target: int, null: int) -> None:
    if stat.S_ISDIR(os.fstat(target).st_mode):
        tree = mounts.filesystem("tmpfs", ("nr_blocks=1", "nr_inodes=1", "mode=755"), syscalls.MOUNT_ATTR_RDONLY)
    else:
        tree = mounts.clone("", directory=null)
        syscalls.mount_setattr(tree, propagation=syscalls.MS_PRIVATE)  # /dev of a host with systemd is shared
    mounts.attach(tree, target)
    os.close(tree)


def _make_read_only(target: int) -> None:
    tree = mounts.clone("", directory=target, recursive=True)
    syscalls.mount_setattr(tree, flags=_RECURSIVE, attr_set=syscalls.MOUNT_ATTR_RDONLY)
    mounts.attach(tree, target)
    os.close(tree)


def pivot(root: int) -> None:
    os.fchdir(root)
    os.close(root)
    syscalls.pivot_root(".", ".")
    # The old root lies on top of the new one now. It is a slave tree, so this does not travel to the host.
    syscalls.umount2(".", syscalls.MNT_DETACH)
    os.chdir("/")
