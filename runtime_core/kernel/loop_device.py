"""Loop devices by system calls: attached to an image, found again by it, grown and given back. Cold.

LO_FLAGS_AUTOCLEAR is not used: a raw block volume is open by nobody until its pod starts, and
a device that clears itself between two mounts could not be told from one that was lost.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct

from runtime_core.errors import FailedPrecondition, ResourceExhausted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_CONTROL = "/dev/loop-control"
_SYSFS = "/sys/block"
# include/uapi/linux/loop.h
_LOOP_CLR_FD, _LOOP_GET_STATUS64, _LOOP_SET_CAPACITY, _LOOP_CONFIGURE = 0x4C01, 0x4C05, 0x4C07, 0x4C0A
_LOOP_CTL_GET_FREE = 0x4C82
_READ_ONLY, _AUTOCLEAR, _DIRECT_IO = 1, 4, 16
_CONFIG = struct.Struct("=II5Q4I64s64s32s2Q8Q")
_INFO = struct.Struct("=5Q4I64s64s32s2Q")
# include/uapi/linux/fs.h
_BLKROSET, _BLKFLSBUF = 0x125D, 0x1261
#: 512 whatever lies below: an image formatted for it stays mountable when it moves to a disk of 4 KiB sectors
_SECTOR = 512
_RACES = 64


def attach(image: str, *, read_only: bool) -> int:
    """The number of a free device, now over `image`."""
    backing = os.open(image, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        for _attempt in range(_RACES):
            number = _free()
            try:
                _configure(number, backing, image, read_only=read_only)
                return number
            except OSError as error:
                if error.errno != errno.EBUSY:  # somebody else was quicker
                    raise
    finally:
        os.close(backing)
    raise ResourceExhausted("loop devices are taken faster than one can be attached")


def _free() -> int:
    try:
        control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise FailedPrecondition(f"{_CONTROL} is missing: load the module loop, or give the container the host's /dev") from None
    try:
        return fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
    finally:
        os.close(control)


def _configure(number: int, backing: int, image: str, *, read_only: bool) -> None:
    device = _open(number)
    try:
        flags = _DIRECT_IO | (_READ_ONLY if read_only else 0)
        name = os.fsencode(image)[-63:]
        config = _CONFIG.pack(backing, _SECTOR, 0, 0, 0, 0, 0, 0, 0, 0, flags, name, b"", b"", 0, 0, *[0] * 8)
        try:
            fcntl.ioctl(device, _LOOP_CONFIGURE, config)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            flags &= ~_DIRECT_IO  # the file system below cannot
            config = _CONFIG.pack(backing, _SECTOR, 0, 0, 0, 0, 0, 0, 0, 0, flags, name, b"", b"", 0, 0, *[0] * 8)
            fcntl.ioctl(device, _LOOP_CONFIGURE, config)
        _set_read_only(device, read_only)  # a reader before us may have left it read-only
    finally:
        os.close(device)


def detach(number: int, image: str = "") -> None:
    """Give it back; a device that is still in use goes with its last user. Idempotent.

    With `image`: nothing when it is over another one, as a device that had been given back before may be by now.
    """
    device = _open(number)
    try:
        if image and number not in find(image, [number]):  # as long as it is open here this stays so
            return
        # Its next user opens it for writing. Until then the loop driver itself refuses writes of a read-only one.
        _set_read_only(device, False)
        fcntl.ioctl(device, _LOOP_CLR_FD)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
    finally:
        os.close(device)


def _set_read_only(device: int, read_only: bool) -> None:
    fcntl.ioctl(device, _BLKROSET, struct.pack("=i", read_only))


def find(image: str, among: Iterable[int] | None = None) -> list[int]:
    """Numbers of the devices over `image`, `among` these or all; of a deleted one those that bear its path."""
    name = "/" + "/".join(image.rsplit("/", 3)[1:])  # what of the path is the same in every mount namespace
    try:
        status = os.stat(image, follow_symlinks=False)
        identity = (_encoded(status.st_dev), status.st_ino)
    except FileNotFoundError:
        identity = None
    found = []
    for number in _all() if among is None else among:
        backing = backing_file(number)
        if not backing.removesuffix(" (deleted)").endswith(name):
            continue
        if identity == _identity(number) or (identity is None and backing == f"{image} (deleted)"):
            found.append(number)
    return sorted(found)


def _all() -> list[int]:
    return [int(entry[4:]) for entry in os.listdir(_SYSFS) if entry.startswith("loop")]


def backing_file(number: int) -> str:
    """The path of its image as the kernel tells it, with " (deleted)" when it is so; "" when it is free."""
    try:
        with open(f"{_SYSFS}/loop{number}/loop/backing_file", "rb", buffering=0) as file:
            return os.fsdecode(file.read().rstrip(b"\n"))
    except OSError:
        return ""


def _identity(number: int) -> tuple[int, int] | None:
    info = _status(number)
    return (info[0], info[1]) if info else None


def is_read_only(number: int) -> bool:
    """Whether loop device `number` is read-only; False when it is free."""
    info = _status(number)
    return bool(info and info[8] & _READ_ONLY)


def is_being_detached(number: int) -> bool:
    """It was given back, and goes when the last who has it open (a prober of udev, a mount) closes it."""
    info = _status(number)
    return bool(info and info[8] & _AUTOCLEAR)


def _status(number: int) -> tuple[int, ...] | None:
    """struct loop_info64, or None when it is free."""
    device = _open(number, os.O_RDONLY)
    try:
        return _INFO.unpack(fcntl.ioctl(device, _LOOP_GET_STATUS64, bytes(_INFO.size)))
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return None
    finally:
        os.close(device)


def _encoded(device: int) -> int:
    """The kernel's huge_encode_dev, which is not what glibc makes of st_dev."""
    major, minor = os.major(device), os.minor(device)
    return minor & 0xFF | major << 8 | (minor & ~0xFF) << 12


def resize(number: int) -> None:
    """Let it be as large as its image is now."""
    device = _open(number)
    try:
        fcntl.ioctl(device, _LOOP_SET_CAPACITY)
    finally:
        os.close(device)


def flush(number: int) -> None:
    """What its users wrote, and the kernel still holds, goes to the image."""
    device = _open(number, os.O_RDONLY)
    try:
        os.fsync(device)
        fcntl.ioctl(device, _BLKFLSBUF)
    finally:
        os.close(device)


def is_claimed(number: int) -> bool:
    """Whether a file system, in whatever mount namespace, or another exclusive user holds it."""
    try:
        os.close(_open(number, os.O_RDONLY | os.O_EXCL))
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return True
    return False


def write_count(number: int) -> int:
    """Writes and discards that it completed (Documentation/block/stat.rst)."""
    with open(f"{_SYSFS}/loop{number}/stat", "rb", buffering=0) as file:
        fields = file.read().split()
    return int(fields[4]) + int(fields[11]) if len(fields) > 11 else int(fields[4])


def device_node(number: int) -> str:
    """Its node in /dev, made where nobody makes it (a container without the host's devtmpfs)."""
    path = f"/dev/loop{number}"
    with open(f"{_SYSFS}/loop{number}/dev", "rb", buffering=0) as file:
        major, _, minor = file.read().strip().partition(b":")
    device = os.makedev(int(major), int(minor))
    try:
        os.mknod(path, stat.S_IFBLK | 0o600, device)
    except FileExistsError:
        status = os.stat(path, follow_symlinks=False)
        if not stat.S_ISBLK(status.st_mode) or status.st_rdev != device:
            raise FailedPrecondition(f"{path} is not the loop device {number}") from None
    return path


def _open(number: int, flags: int = os.O_RDWR) -> int:
    path = device_node(number)
    try:
        return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW)
    except PermissionError:
        # read-only since its last user: ioctls do with less, but LOOP_CONFIGURE wants it writable
        if flags != os.O_RDWR:
            raise
    device = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _set_read_only(device, False)
        return os.open(path, flags | os.O_CLOEXEC)
    finally:
        os.close(device)
