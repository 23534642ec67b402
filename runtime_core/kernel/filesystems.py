"""What a file system does on request: freeze, share extents, tell its holes, grow. Cold."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
import time

from runtime_core.errors import DeadlineExceeded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# include/uapi/linux/fs.h, fs/ext4/ext4.h, fs/xfs/libxfs/xfs_fs.h
_FIFREEZE, _FITHAW, _FICLONE = 0xC0045877, 0xC0045878, 0x40049409
_FS_IOC_FIEMAP = 0xC020660B
_EXT4_IOC_RESIZE_FS = 0x40086610
_XFS_IOC_FSGEOMETRY_V1, _XFS_IOC_FSGROWFSDATA = 0x80705864, 0x4010586E
_FIEMAP_FLAG_SYNC, _EXTENT_LAST = 1, 1
#: extents of which the physical place says nothing about the content: unknown, delayed, encoded, not aligned, inline, tail
_EXTENT_VAGUE = 0x2 | 0x4 | 0x8 | 0x100 | 0x200 | 0x400
_EXTENT_UNWRITTEN = 0x800
_FIEMAP_HEADER, _FIEMAP_EXTENT = struct.Struct("=QQIIII"), struct.Struct("=QQQQQIIII")
_EXTENTS_AT_ONCE = 256
_CHUNK = 16 << 20

_ioctl = ctypes.CDLL(None, use_errno=True)["ioctl"]
_ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)


def large_ioctl(descriptor: int, request: int, buffer: bytearray) -> None:
    """ioctl(2) of more than the 1024 bytes up to which fcntl.ioctl lets other threads run meanwhile."""
    memory = (ctypes.c_char * len(buffer)).from_buffer(buffer)
    if _ioctl(descriptor, request, ctypes.addressof(memory)) == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"ioctl: {os.strerror(code)}")


def freeze(descriptor: int) -> None:
    """Let the file system write out everything and stop its writers; EBUSY when it is frozen already."""
    fcntl.ioctl(descriptor, _FIFREEZE, 0)


def unfreeze(descriptor: int) -> bool:
    """False when it was not frozen."""
    try:
        fcntl.ioctl(descriptor, _FITHAW, 0)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return True


def copy(source: int, target: int, deadline: float) -> None:
    """Let the empty file `target` hold what `source` holds: shared where the file system can, else data without the holes.

    DeadlineExceeded when the monotonic clock passes `deadline`.
    """
    if reflink(source, target):
        return
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    for start, end in data_ranges(source, 0, size):
        while start < end:
            copied = _copy_range(source, target, min(end - start, _CHUNK), start)
            if copied == 0:
                return  # it became shorter
            start += copied
            if time.monotonic() > deadline:
                raise DeadlineExceeded("copying took too long; a file system with reflinks (xfs, btrfs) needs no copy")


def _copy_range(source: int, target: int, size: int, start: int) -> int:
    try:
        return os.copy_file_range(source, target, size, start, start)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EOPNOTSUPP):
            raise
    os.lseek(target, start, os.SEEK_SET)  # from one kind of file system to another, as out of an overlay
    return os.sendfile(target, source, start, size)


def reflink(source: int, target: int) -> bool:
    """Share all extents of `source`; False where the file system cannot. Of one instant."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL):
            raise
        return False
    return True


def data_ranges(descriptor: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """(first byte, first byte after) of what is not a hole between `start` and `end`."""
    while start < end:
        try:
            start = os.lseek(descriptor, start, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return
        if start >= end:
            return
        hole = min(os.lseek(descriptor, start, os.SEEK_HOLE), end)
        yield start, hole
        start = hole


def extents(descriptor: int, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(first byte, first byte after, place on the disk or -1 when it says nothing), written ones only (FIEMAP)."""
    while start < end:
        request = bytearray(_FIEMAP_HEADER.size + _EXTENTS_AT_ONCE * _FIEMAP_EXTENT.size)
        _FIEMAP_HEADER.pack_into(request, 0, start, end - start, _FIEMAP_FLAG_SYNC, 0, _EXTENTS_AT_ONCE, 0)
        large_ioctl(descriptor, _FS_IOC_FIEMAP, request)
        count = _FIEMAP_HEADER.unpack_from(request)[3]
        last = count == 0
        for index in range(count):
            logical, physical, length, _r1, _r2, flags, *_rest = _FIEMAP_EXTENT.unpack_from(
                request, _FIEMAP_HEADER.size + index * _FIEMAP_EXTENT.size
            )
            last = last or bool(flags & _EXTENT_LAST)
            begin, finish = max(logical, start), min(logical + length, end)
            if begin < finish and not flags & _EXTENT_UNWRITTEN:
                yield begin, finish, -1 if flags & _EXTENT_VAGUE else physical + begin - logical
            start = max(start, logical + length)
        if last:
            return


def grow_ext4(mounted: int, size: int) -> None:
    """Let the mounted ext4 fill `size` bytes of its device; EPERM without CAP_SYS_RESOURCE."""
    blocks = size // os.fstatvfs(mounted).f_bsize
    fcntl.ioctl(mounted, _EXT4_IOC_RESIZE_FS, struct.pack("=Q", blocks))


def grow_xfs(mounted: int, size: int) -> None:
    """Let the mounted xfs fill `size` bytes of its device."""
    geometry = struct.unpack_from("=8IQ", fcntl.ioctl(mounted, _XFS_IOC_FSGEOMETRY_V1, bytes(112)))
    block_size, inode_percentage, blocks = geometry[0], geometry[7], geometry[8]
    if size // block_size > blocks:
        fcntl.ioctl(mounted, _XFS_IOC_FSGROWFSDATA, struct.pack("=QI4x", size // block_size, inode_percentage))
