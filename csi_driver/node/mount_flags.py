"""Mount flags: which ones belong to a single mount, and which ones to the file system."""

from __future__ import annotations

from collections.abc import Iterable

from runtime_core.errors import FailedPrecondition, InvalidArgument
from runtime_core.kernel import syscalls

#: mount(8) → (attributes to set, attributes to clear) of one mount, mount_setattr(2)
_ATTRIBUTES = {
    "ro": (syscalls.MOUNT_ATTR_RDONLY, 0),
    "nosuid": (syscalls.MOUNT_ATTR_NOSUID, 0),
    "nodev": (syscalls.MOUNT_ATTR_NODEV, 0),
    "noexec": (syscalls.MOUNT_ATTR_NOEXEC, 0),
    "nodiratime": (syscalls.MOUNT_ATTR_NODIRATIME, 0),
    "nosymfollow": (syscalls.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "noatime": (syscalls.MOUNT_ATTR_NOATIME, syscalls.MOUNT_ATTR__ATIME),
    "relatime": (syscalls.MOUNT_ATTR_RELATIME, syscalls.MOUNT_ATTR__ATIME),
    "strictatime": (syscalls.MOUNT_ATTR_STRICTATIME, syscalls.MOUNT_ATTR__ATIME),
}
#: what a mount is anyway
_NOTHING = ("rw", "defaults", "suid", "dev", "exec", "bind")


def parse_flags(flags: Iterable[str], field: str) -> tuple[str, ...]:
    """Each flag once, commas taken apart but for those within a quoted SELinux context."""
    found: list[str] = []
    for given in flags:
        for flag in [given] if "context=" in given else given.split(","):
            if not flag or "\0" in flag or "\n" in flag:
                raise InvalidArgument(f"{field}: {flag[:64]!r} is not a mount flag")
            if flag not in found:
                found.append(flag)
    return tuple(found)


def is_read_only(flags: Iterable[str]) -> bool:
    return "ro" in flags


def mount_attributes(flags: Iterable[str], staged: Iterable[str], field: str) -> tuple[int, int]:
    """(set, clear) for a mount of a file system that is mounted with `staged`; FailedPrecondition when it would need others."""
    to_set = to_clear = 0
    for flag in flags:
        if flag in _ATTRIBUTES:
            to_set |= _ATTRIBUTES[flag][0]
            to_clear |= _ATTRIBUTES[flag][1]
        elif flag not in _NOTHING and flag not in staged:
            raise FailedPrecondition(f"{field}: the volume is staged without {flag[:64]!r}")
    return to_set, to_clear
