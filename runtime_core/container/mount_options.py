"""Mount options of the OCI runtime spec, sorted by what the kernel wants of them. Pure."""

from __future__ import annotations

from runtime_core.errors import InvalidArgument
from runtime_core.kernel import syscalls

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
    "diratime": syscalls.MOUNT_ATTR_NODIRATIME,
    "symfollow": syscalls.MOUNT_ATTR_NOSYMFOLLOW,
    "atime": syscalls.MOUNT_ATTR__ATIME,
    "relatime": syscalls.MOUNT_ATTR__ATIME,
}
_PROPAGATION = {
    "private": syscalls.MS_PRIVATE,
    "slave": syscalls.MS_SLAVE,
    "shared": syscalls.MS_SHARED,
    "unbindable": syscalls.MS_UNBINDABLE,
}
#: what Linux does anyway, or no longer knows
_IGNORED = frozenset((
    "bind", "rbind", "defaults", "async", "norelatime", "nostrictatime", "loud", "silent", "nomand",
    "noiversion", "iversion", "nolazytime", "rrelatime",
))  # fmt: skip
_ATIME = syscalls.MOUNT_ATTR_NOATIME | syscalls.MOUNT_ATTR_STRICTATIME
#: every option that is understood here rather than by a file system, sorted
KNOWN = tuple(sorted(
    {*_SET, *_CLEAR, *_PROPAGATION, *_IGNORED, "idmap", "ridmap"}
    | {"r" + name for name in (*_SET, *_CLEAR, *_PROPAGATION)}
))  # fmt: skip


class Options:
    """`attributes` and `cleared` are of the mount itself, the recursive ones of all below it too;
    `data` is the file system's own."""

    __slots__ = ("attributes", "cleared", "data", "is_bind", "is_idmapped", "is_recursive", "propagation",
                 "recursive_attributes", "recursive_cleared", "recursive_propagation")  # fmt: skip

    def __init__(self, options: list[str], field: str) -> None:
        self.attributes = self.cleared = self.recursive_attributes = self.recursive_cleared = 0
        self.propagation = self.recursive_propagation = 0
        self.data: list[str] = []
        self.is_recursive = "rbind" in options
        self.is_bind = self.is_recursive or "bind" in options
        self.is_idmapped = False
        for option in options:
            self._take(option, field)
        # Setting one of the three ways to keep access times means clearing the field first (mount_setattr(2)).
        if self.attributes & _ATIME:
            self.cleared |= syscalls.MOUNT_ATTR__ATIME
        if self.recursive_attributes & _ATIME:
            self.recursive_cleared |= syscalls.MOUNT_ATTR__ATIME

    def _take(self, option: str, field: str) -> None:
        rest = option[1:] if option[:1] == "r" else ""
        if option in _SET:
            self.attributes |= _SET[option]
            self.cleared &= ~_SET[option]
        elif option in _CLEAR:
            self.cleared |= _CLEAR[option]
            self.attributes &= ~_CLEAR[option]
        elif option in _PROPAGATION:
            self.propagation = _PROPAGATION[option]
        elif rest in _PROPAGATION:
            self.recursive_propagation = _PROPAGATION[rest]
        elif option in _IGNORED:
            return
        elif rest in _SET:
            self.recursive_attributes |= _SET[rest]
        elif rest in _CLEAR:
            self.recursive_cleared |= _CLEAR[rest]
        elif option in ("idmap", "ridmap"):
            self.is_idmapped = True
        elif option in ("tmpcopyup", "copy-symlink"):
            raise InvalidArgument(f"{field}.options: {option!r} is not supported")
        else:
            self.data.append(option)


def propagation(mode: str) -> int:
    """The MS_ flag of linux.rootfsPropagation, private when it is not said. Recursive or not is the same
    for a root that has nothing below it yet."""
    if not mode:
        return syscalls.MS_PRIVATE
    name = mode if mode in _PROPAGATION else mode[1:] if mode[0] == "r" else ""
    if name not in _PROPAGATION:
        raise InvalidArgument(f"linux.rootfsPropagation: unknown mode {mode!r}")
    return _PROPAGATION[name]
