"""Which processes hold a file system, a mount or a block device: for the message that says why it is not let go. Cold.

statx(2) with AT_STATX_DONT_SYNC: a file on a network file system that hangs is not asked about.
"""

from __future__ import annotations

import ctypes
import os
import struct

from runtime_core.kernel.decimal_number import parse_decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# include/uapi/linux/stat.h, fcntl.h
_AT_FDCWD, _AT_NO_AUTOMOUNT, _AT_STATX_DONT_SYNC = -100, 0x800, 0x4000
_STATX_TYPE, _STATX_MNT_ID = 0x1, 0x1000
#: of struct statx: rdev and dev, as major and minor each; mnt_id
_DEVICES, _MOUNT_ID = struct.Struct("=128x4I"), struct.Struct("=144xQ")
_SHOWN = 4

_statx = ctypes.CDLL(None, use_errno=True)["statx"]
_statx.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p)


def device_holders(device: int) -> str:
    """Who has a file of the file system on `device` (st_dev) open or works in it, has the device itself open, or has it mounted.

    Such as "4711 (sleep), a mount at /data in the namespace of 815 (sh)", the first few of them; "" when nobody can be seen,
    who may be in the kernel alone.
    """

    def is_on_it(buffer: bytes) -> bool:
        major, minor, file_major, file_minor = _DEVICES.unpack_from(buffer)
        return device in (os.makedev(major, minor), os.makedev(file_major, file_minor))

    return _describe([*_users(is_on_it), *_mounts(device)])


def mount_holders(number: int) -> str:
    """Who has a file open that was reached by the mount of this number (/proc/self/mountinfo), or works there; as
    `device_holders`."""

    def is_by_it(buffer: bytes) -> bool:
        return bool(_MOUNT_ID.unpack_from(buffer)[0] == number)

    return _describe(_users(is_by_it))


def _describe(found: list[str]) -> str:
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more


def _users(matches: Callable[[bytes], bool]) -> list[str]:
    """Not this process: what it has open it is about to let go."""
    return [_named(pid) for pid in _processes() if pid != os.getpid() and _holds(pid, matches)]


def _mounts(device: int) -> list[str]:
    """Of each mount namespace that a process is in, told by the first such process."""
    number = f"{os.major(device)}:{os.minor(device)}".encode()
    namespaces, found = set(), []
    for pid in _processes():
        try:
            namespace = os.readlink(f"/proc/{pid}/ns/mnt")
        except OSError:
            continue  # it has ended
        if namespace not in namespaces:
            namespaces.add(namespace)
            fields = [line.split(b" ", 5) for line in _read(f"/proc/{pid}/mountinfo").splitlines()]
            points = [os.fsdecode(field[4]) for field in fields if field[2] == number]
            found += [f"a mount at {point} in the namespace of {_named(pid)}" for point in points]
    return found


def _named(pid: int) -> str:
    return f"{pid} ({_read(f'/proc/{pid}/comm').decode(errors='replace').strip()})"


def _processes() -> list[int]:
    return sorted(pid for name in os.listdir("/proc") if (pid := parse_decimal(name)) is not None)


def _holds(pid: int, matches: Callable[[bytes], bool]) -> bool:
    base = f"/proc/{pid}"
    try:
        names = [f"{kind}/{name}" for kind in ("fd", "map_files") for name in os.listdir(f"{base}/{kind}")]
    except OSError:
        return False  # it has ended
    return any(matches(_read_status(f"{base}/{name}")) for name in ("cwd", "root", "exe", *names))


def _read_status(path: str) -> bytes:
    """struct statx of what the link names; zeros, which nothing matches, when it is gone."""
    buffer = ctypes.create_string_buffer(256)
    _statx(_AT_FDCWD, os.fsencode(path), _AT_NO_AUTOMOUNT | _AT_STATX_DONT_SYNC, _STATX_TYPE | _STATX_MNT_ID, buffer)
    return buffer.raw


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except OSError:
        return b""
