"""VOLUME_MOUNT_GROUP: the files of a volume belong to a pod's group."""

from __future__ import annotations

import os
import stat

from runtime_core.errors import InvalidArgument
from runtime_core.kernel.decimal_number import parse_decimal

_LARGEST_ID = 0xFFFFFFFE
_FILE, _DIRECTORY = 0o660, 0o2770


def parse_group(text: str, field: str) -> str:
    """A group's number as text, "" for none."""
    number = parse_decimal(text, _LARGEST_ID)
    if text and number is None:
        raise InvalidArgument(f"{field}: {text[:32]!r} is not the number of a group")
    return str(number) if text else ""


def apply_group(tree: int, group: str) -> None:
    """Give everything below the directory `tree` to `group`. The root is changed last: it tells that all else is."""
    root = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=tree)
    try:
        found = os.fstat(root)
        if found.st_gid == int(group) and found.st_mode & _DIRECTORY == _DIRECTORY:
            return
        _apply_below(root, int(group), found.st_dev)
        _change_group(root, int(group))
    finally:
        os.close(root)


def _apply_below(root: int, group: int, device: int) -> None:
    """Depth first, by descriptor: names may be swapped for links by a pod that still runs."""
    pending = [iter(os.listdir(root))]
    opened = [root]
    while pending:
        name = next(pending[-1], None)
        if name is None:
            pending.pop()
            done = opened.pop()
            if done != root:
                os.close(done)
            continue
        try:
            entry = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=opened[-1])
        except FileNotFoundError:
            continue
        try:
            found = os.fstat(entry)
            if found.st_dev != device:
                continue  # something that is mounted within
            if not stat.S_ISLNK(found.st_mode):
                _change_group(entry, group)
            if stat.S_ISDIR(found.st_mode):
                opened.append(os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=entry))
                pending.append(iter(os.listdir(opened[-1])))
        finally:
            os.close(entry)


def _change_group(descriptor: int, group: int) -> None:
    """The link in /proc reaches what an O_PATH descriptor names, and follows nothing further."""
    path = f"/proc/self/fd/{descriptor}"
    mode = os.fstat(descriptor).st_mode
    os.chown(path, -1, group)
    if stat.S_ISDIR(mode):
        os.chmod(path, stat.S_IMODE(mode) | _DIRECTORY)
    else:
        os.chmod(path, mode & 0o777 | _FILE)  # no program becomes setgid to a group that it was not made for
