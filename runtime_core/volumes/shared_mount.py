"""Volumes that are directories of a file system that others share: what can be mounted of it, and how."""

from __future__ import annotations

import os
from collections.abc import Sequence

from runtime_core.errors import InvalidArgument, NotFound
from runtime_core.kernel import mounts, syscalls
from runtime_core.volumes import mount_flags

_ATIME = syscalls.MOUNT_ATTR_NOATIME | syscalls.MOUNT_ATTR_STRICTATIME


def mount(path: str, what: str, flags: Sequence[str], *, read_only: bool) -> int:
    """A detached mount of the directory `path`; only attributes of a mount can be chosen."""
    parsed = mount_flags.parse(flags, read_only=read_only)
    if parsed.options:
        raise InvalidArgument(f"mount_flags: {parsed.options[0]!r} is an option of a file system, which this volume shares")
    if not os.path.isdir(path):
        raise NotFound(f"{what} does not exist")
    tree = mounts.bind(path)
    try:
        cleared = syscalls.MOUNT_ATTR__ATIME if parsed.attributes & _ATIME else 0
        if parsed.attributes or cleared:
            syscalls.mount_setattr(tree, attr_set=parsed.attributes, attr_clr=cleared)
    except OSError:
        os.close(tree)
        raise
    return tree
