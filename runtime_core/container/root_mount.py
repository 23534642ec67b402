"""The root file system of a container as one detached mount: overlay or bind, idmapped in a user namespace."""

from __future__ import annotations

import errno
import os

from runtime_core.container.child_process import run_in_process
from runtime_core.errors import InvalidArgument
from runtime_core.kernel import mounts, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


def mount(root: dict[str, Any], user_namespace: int = -1) -> int:
    """Descriptor of what `root` (interfaces.runtime.RootMount as JSON) describes."""
    return _idmapped(root, user_namespace) if user_namespace >= 0 else _plain(root)


def host_ids(user_namespace: int, uid: int, gid: int) -> tuple[int, int]:
    """What the ids `uid` and `gid` of the user namespace are on the host: an idmapped mount shows it."""
    tree = mounts.filesystem("tmpfs", (f"uid={uid}", f"gid={gid}", "nr_inodes=1"))
    try:
        mounts.idmap(tree, user_namespace)
        status = os.fstat(tree)
        return status.st_uid, status.st_gid
    finally:
        os.close(tree)


def _plain(root: dict[str, Any]) -> int:
    if root["type"] == "bind":
        tree = mounts.bind(root["source"], recursive=True)
    elif root["type"] == "overlay":
        lower = list(root["lower"])
        if not root.get("upper") and len(lower) == 1:
            tree = mounts.bind(lower[0])  # overlayfs wants two layers where there is no upper one
        else:
            tree = mounts.overlay(lower, root.get("upper") or "", root.get("work") or "")
    else:
        raise InvalidArgument(f"root.type: {root['type']!r} is neither overlay nor bind")
    if root.get("read_only"):
        syscalls.mount_setattr(tree, attr_set=syscalls.MOUNT_ATTR_RDONLY)
    return tree


def _idmapped(root: dict[str, Any], user_namespace: int) -> int:
    """The root with the owners that the user namespace shows as the image's; the disk keeps the image's ids."""
    if root["type"] != "overlay" or not root.get("upper"):
        tree = _plain(root)
        mounts.idmap(tree, user_namespace, recursive=root["type"] == "bind")
        return tree
    opened: list[int] = []
    try:
        for directory in root["lower"]:
            opened.append(mounts.bind(directory))
            mounts.idmap(opened[-1], user_namespace)
        # Upper and work must be on one mount, so it is the directory above both that is cloned.
        above = os.path.commonpath((root["upper"], root["work"]))
        opened.append(mounts.bind(above))
        mounts.idmap(opened[-1], user_namespace)
        pair = [_below(opened[-1], above, path) for path in (root["upper"], root["work"])]
        trees = list(opened)
        opened += pair
        try:
            return _mount_as_container_root(trees[:-1], pair, user_namespace)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EBADF):
                raise
            return _mounted_by_path(trees, above, root, user_namespace)
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _below(tree: int, above: str, path: str) -> int:
    return os.open(os.path.relpath(path, above), os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=tree)


def _mount_as_container_root(lower: Sequence[str | int], pair: Sequence[str | int], user_namespace: int) -> int:
    """overlayfs makes files of its own as who mounted it, and through idmapped layers only ids of the
    user namespace can be written: so the mounter's file-system ids are those of the container's root."""
    uid, gid = host_ids(user_namespace, 0, 0)
    bits = syscalls.prctl(syscalls.PR_GET_SECUREBITS)
    syscalls.prctl(syscalls.PR_SET_SECUREBITS, bits | syscalls.SECBIT_NO_SETUID_FIXUP)  # else capabilities go
    before = syscalls.setfsuid(uid), syscalls.setfsgid(gid)
    try:
        return mounts.overlay(lower, pair[0], pair[1])
    finally:
        syscalls.setfsuid(before[0])
        syscalls.setfsgid(before[1])
        syscalls.prctl(syscalls.PR_SET_SECUREBITS, bits)


def _mounted_by_path(trees: list[int], above: str, root: dict[str, Any], user_namespace: int) -> int:
    """The same before Linux 6.13, where a layer has to be mounted where its mounter is: a child with a mount
    namespace of its own does it, and the overlay outlives both."""

    def mount_there() -> tuple[int, ...]:
        lower, below = _attach_all(trees, above)
        pair = [os.path.join(below, os.path.relpath(root[key], above)) for key in ("upper", "work")]
        return (_mount_as_container_root(lower, pair, user_namespace),)

    return run_in_process("mounting an idmapped overlay", mount_there, syscalls.CLONE_NEWNS)[0]


def _attach_all(trees: list[int], above: str) -> tuple[list[str], str]:
    """Paths at which `trees` are mounted now: the lower ones, and the last. They lie on a tmpfs that covers `above`."""
    syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    cover = mounts.tmpfs()
    target = os.open(above, os.O_PATH | os.O_DIRECTORY)
    mounts.attach(cover, target)
    places = []
    for number, tree in enumerate(trees):
        places.append(os.path.join(above, str(number)))
        os.mkdir(places[-1])
        place = os.open(places[-1], os.O_PATH | os.O_DIRECTORY)
        mounts.attach(tree, place)
        os.close(place)
    return places[:-1], places[-1]
