"""Project quotas of ext4 and xfs: the project of a directory, its limit, its use. Cold.

quotactl_fd(2) takes a descriptor on the file system, so no path of a device is needed (Linux 5.14).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import struct

from runtime_core.kernel import syscalls

# include/uapi/linux/fs.h: struct fsxattr
_FS_IOC_FSGETXATTR, _FS_IOC_FSSETXATTR = 0x801C581F, 0x401C5820
_FSXATTR = struct.Struct("=5I8x")
_XFLAG_PROJINHERIT = 0x200
# include/uapi/linux/quota.h: struct if_dqblk
_NR_QUOTACTL_FD = 443
_Q_GETQUOTA, _Q_SETQUOTA, _PRJQUOTA = 0x800007, 0x800008, 2
_DQBLK = struct.Struct("=8QI4x")
_VALID_BLOCK_LIMITS = 1
#: in which struct if_dqblk counts limits
_UNIT = 1024


def assign(directory: int, project: int) -> None:
    """Let `directory`, which is empty, and all that will be made in it count for `project`."""
    flags, *middle, _project, cow = _FSXATTR.unpack(_get(directory))
    fcntl.ioctl(directory, _FS_IOC_FSSETXATTR, _FSXATTR.pack(flags | _XFLAG_PROJINHERIT, *middle, project, cow))


def project_of(directory: int) -> int:
    """0 for none."""
    return int(_FSXATTR.unpack(_get(directory))[3])


def _get(directory: int) -> bytes:
    return fcntl.ioctl(directory, _FS_IOC_FSGETXATTR, bytes(_FSXATTR.size))


def limit(descriptor: int, project: int, size: int) -> None:
    """At most `size` bytes for `project`, 0 for no limit, on the file system of `descriptor`."""
    blocks = size // _UNIT
    quota = ctypes.create_string_buffer(_DQBLK.pack(blocks, blocks, 0, 0, 0, 0, 0, 0, _VALID_BLOCK_LIMITS))
    _quotactl(descriptor, _Q_SETQUOTA, project, quota)


def usage(descriptor: int, project: int) -> tuple[int, int, int]:
    """(limit, bytes used, inodes used) of `project`; zeros when the file system knows nothing of it."""
    quota = ctypes.create_string_buffer(_DQBLK.size)
    try:
        _quotactl(descriptor, _Q_GETQUOTA, project, quota)
    except OSError as error:
        if error.errno != errno.ENOENT:  # xfs, which has no record of the project
            raise
        return 0, 0, 0
    hard, _soft, space, _ihard, _isoft, inodes, *_rest = _DQBLK.unpack(quota.raw[: _DQBLK.size])
    return hard * _UNIT, space, inodes


def _quotactl(descriptor: int, command: int, project: int, quota: ctypes.Array[ctypes.c_char]) -> None:
    syscalls.call("quotactl_fd", _NR_QUOTACTL_FD, descriptor, command << 8 | _PRJQUOTA, project, ctypes.byref(quota))


def is_supported(descriptor: int) -> bool:
    """Whether the kernel has the call, and the file system project quotas that are on."""
    try:
        usage(descriptor, 0)
    except OSError:
        return False
    return True
