"""The network namespace of a pod as a file: for CNI plugins, and for DEL after the monitor has died. Cold."""

from __future__ import annotations

import os

from runtime_core.kernel import syscalls


def pin(path: str) -> None:
    """Bind this process's network namespace to the file `path`, which outlives the process."""
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o444))
    syscalls.mount("/proc/self/ns/net", path, "", syscalls.MS_BIND)


def unpin(path: str) -> None:
    """Undo `pin`. Idempotent."""
    try:
        syscalls.umount2(path, syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)
    except OSError as error:
        if error.errno not in (2, 22):  # ENOENT, EINVAL: not there, not mounted
            raise
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
