"""Mount flags of a StorageClass or PersistentVolume: what is an attribute of the mount, what an option of the file system."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from runtime_core.errors import InvalidArgument
from runtime_core.kernel import syscalls

_FLAG = re.compile(r'[a-z][a-z0-9_]{0,31}(=[A-Za-z0-9_.:+%-]{1,64}|=(?P<label>"?[A-Za-z0-9_.:,-]{1,255}"?))?')
_LABELS = {"context", "fscontext", "defcontext", "rootcontext"}
_SET = {
    "nosuid": syscalls.MOUNT_ATTR_NOSUID,
    "nodev": syscalls.MOUNT_ATTR_NODEV,
    "noexec": syscalls.MOUNT_ATTR_NOEXEC,
    "nodiratime": syscalls.MOUNT_ATTR_NODIRATIME,
    "nosymfollow": syscalls.MOUNT_ATTR_NOSYMFOLLOW,
    "noatime": syscalls.MOUNT_ATTR_NOATIME,
    "strictatime": syscalls.MOUNT_ATTR_STRICTATIME,
    "relatime": syscalls.MOUNT_ATTR_RELATIME,
}
_CLEARED = {
    "suid": syscalls.MOUNT_ATTR_NOSUID,
    "dev": syscalls.MOUNT_ATTR_NODEV,
    "exec": syscalls.MOUNT_ATTR_NOEXEC,
    "diratime": syscalls.MOUNT_ATTR_NODIRATIME,
}
_ATIME = {"noatime", "strictatime", "relatime"}
#: change which mount, or whose, or lead to other files and devices than the volume's, or stop the node on an error
_REFUSED = {
    "bind", "rbind", "move", "remount", "shared", "rshared", "private", "rprivate", "slave", "rslave", "unbindable",
    "runbindable", "loop", "offset", "sizelimit", "source", "user", "users", "owner", "group",
    "journal_dev", "journal_path", "logdev", "rtdev", "device", "subvol", "subvolid", "rescue", "degraded",
    "norecovery", "noload", "usrjquota", "grpjquota", "jqfmt", "usrquota", "grpquota", "prjquota", "quota", "noquota",
    "pquota", "uquota", "gquota", "nouuid", "errors", "fatal_errors",
}  # fmt: skip
_IGNORED = {"defaults", "rw", "auto", "noauto", "nofail"}


@dataclass(frozen=True, slots=True)
class MountFlags:
    #: options of the file system
    options: tuple[str, ...]
    #: MOUNT_ATTR_* of the mount
    attributes: int
    read_only: bool


def parse(flags: Sequence[str], *, read_only: bool = False) -> MountFlags:
    """InvalidArgument names the flag that cannot be."""
    options, attributes = [], 0
    for index, flag in enumerate(flags):
        key, equals, value = flag.partition("=")
        matched = _FLAG.fullmatch(flag)
        if not matched or (matched["label"] and key not in _LABELS):
            raise InvalidArgument(f"mount_flags[{index}]: {flag!r} is not an option, or one with a value")
        if key in _REFUSED:
            raise InvalidArgument(f"mount_flags[{index}]: {key!r} is not the volume's to choose")
        if equals:
            options.append(f"{key}={value.strip(chr(34))}")
        elif key in _SET:
            if key in _ATIME:
                attributes &= ~syscalls.MOUNT_ATTR__ATIME
            attributes |= _SET[key]
        elif key in _CLEARED:
            attributes &= ~_CLEARED[key]
        elif key == "ro":
            read_only = True
        elif key not in _IGNORED:
            options.append(key)
    return MountFlags(tuple(options), attributes | (syscalls.MOUNT_ATTR_RDONLY if read_only else 0), read_only)
