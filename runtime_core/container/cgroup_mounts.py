"""/sys/fs/cgroup of a container, as its cgroup namespace shows it: one mount (v2) or one per controller (v1)."""

from __future__ import annotations

import os

from runtime_core.kernel import mounts, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime_core.container.mount_options import Options


def mount(target: int, options: Options) -> None:
    """Mount on the directory `target`. The process is in its cgroup namespace already."""
    with open("/proc/self/cgroup", "rb") as file:
        hierarchies = [os.fsdecode(line.rstrip(b"\n").split(b":", 2)[1]) for line in file]
    if hierarchies == [""]:
        _attach(mounts.filesystem("cgroup2", (), options.attributes, "cgroup"), target)
    else:
        _mount_controllers(target, [entry for entry in hierarchies if entry], options.attributes)


def _mount_controllers(target: int, hierarchies: list[str], attributes: int) -> None:
    """A tmpfs with a directory per hierarchy. It is read-only too when asked for: the host's tree, where
    there is no cgroup namespace, must not be writable (CVE-2023-25809)."""
    base = mounts.filesystem("tmpfs", ("mode=755",), attributes & ~syscalls.MOUNT_ATTR_RDONLY, "cgroup")
    mounts.attach(base, target)
    for controllers in hierarchies:
        name = controllers.removeprefix("name=")
        os.mkdir(name, 0o755, dir_fd=base)
        point = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=base)
        _attach(mounts.filesystem("cgroup", controllers.split(","), attributes, "cgroup"), point)
        os.close(point)
        for alias in name.split(",") if "," in name else ():
            os.symlink(name, alias, dir_fd=base)
    if attributes & syscalls.MOUNT_ATTR_RDONLY:
        syscalls.mount_setattr(base, attr_set=syscalls.MOUNT_ATTR_RDONLY)
    os.close(base)


def _attach(tree: int, target: int) -> None:
    mounts.attach(tree, target)
    os.close(tree)
