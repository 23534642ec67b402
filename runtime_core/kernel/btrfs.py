"""btrfs by ioctl: subvolumes made, snapshotted and destroyed, quota groups limited and read. Cold."""

from __future__ import annotations

import fcntl
import os
import struct

from runtime_core.kernel.filesystems import large_ioctl

MAGIC = 0x9123683E
# include/uapi/linux/btrfs.h
_SNAP_CREATE_V2, _SUBVOL_CREATE_V2, _SNAP_DESTROY_V2 = 0x50009417, 0x50009418, 0x5000943F
_GET_SUBVOL_INFO, _FS_INFO = 0x81F8943C, 0x8400941F
_QUOTA_CTL, _QGROUP_LIMIT = 0xC0109428, 0x8030942B
_SUBVOL_RDONLY, _SPEC_BY_ID = 2, 16
_TREE_SEARCH, _ROOT_TREE, _ROOT_REF_KEY, _U64 = 0xD0009411, 1, 156, 2**64 - 1
_QUOTA_ENABLE, _LIMIT_MAX_REFERENCED = 1, 1
_ARGUMENTS = struct.Struct("=qQQ32x4040s")


def create(directory: int, name: str) -> None:
    """A new subvolume `name` in `directory`."""
    large_ioctl(directory, _SUBVOL_CREATE_V2, _arguments(0, 0, name))


def snapshot(source: int, directory: int, name: str, *, read_only: bool) -> None:
    """A snapshot `name` of the subvolume of which `source` is the root; it is on disk at return."""
    large_ioctl(directory, _SNAP_CREATE_V2, _arguments(source, _SUBVOL_RDONLY if read_only else 0, name))


def destroy(directory: int, subvolume: int) -> None:
    """The subvolume of which `subvolume` is a descriptor, with those that were made in it; `directory` lies on the same
    file system, outside of it."""
    pending = [identity(subvolume)]
    order = []
    while pending:
        current = pending.pop()
        order.append(current)
        pending += _children(directory, current)
    for current in reversed(order):
        arguments = bytearray(struct.pack("=qQQ32xQ4032x", 0, 0, _SPEC_BY_ID, current))
        large_ioctl(directory, _SNAP_DESTROY_V2, arguments)


def _children(descriptor: int, parent: int) -> list[int]:
    """Ids of the subvolumes that lie in the subvolume `parent`: keys (parent, ROOT_REF, child) of the root tree."""
    found: list[int] = []
    while True:
        first = found[-1] + 1 if found else 0
        request = bytearray(4096)
        struct.pack_into(
            "=7Q4I", request, 0,
            _ROOT_TREE, parent, parent, first, _U64, 0, _U64, _ROOT_REF_KEY, _ROOT_REF_KEY, 1000, 0,
        )  # fmt: skip
        large_ioctl(descriptor, _TREE_SEARCH, request)
        count, position = struct.unpack_from("=I", request, 64)[0], 104
        if not count:
            return found
        for _item in range(count):
            _transaction, _object, offset, _kind, length = struct.unpack_from("=QQQII", request, position)
            found.append(offset)
            position += 32 + length


def _arguments(descriptor: int, flags: int, name: str) -> bytearray:
    return bytearray(_ARGUMENTS.pack(descriptor, 0, flags, os.fsencode(name)))


def transactions(subvolume: int) -> tuple[int, int]:
    """(that in which it was made, the last in which it, or what it was made of, was changed before)."""
    return _information(subvolume)[10], _information(subvolume)[9]


def identity(subvolume: int) -> int:
    return int(_information(subvolume)[0])


def _information(subvolume: int) -> tuple[int, ...]:
    buffer = bytearray(504)
    fcntl.ioctl(subvolume, _GET_SUBVOL_INFO, buffer)
    return struct.unpack_from("=Q256sQQQQ16s16s16sQQQQ", buffer)


def enable_quota(descriptor: int) -> None:
    """Full quota groups, where the file system has none of any kind yet."""
    if os.path.isdir(f"/sys/fs/btrfs/{_filesystem_id(descriptor)}/qgroups"):
        return
    fcntl.ioctl(descriptor, _QUOTA_CTL, bytearray(struct.pack("=QQ", _QUOTA_ENABLE, 0)))


def limit(subvolume: int, size: int) -> None:
    """Let what the subvolume refers to be at most `size` bytes."""
    fcntl.ioctl(subvolume, _QGROUP_LIMIT, struct.pack("=6Q", 0, _LIMIT_MAX_REFERENCED, size, 0, 0, 0))


def quota(subvolume: int) -> tuple[int, int]:
    """(bytes that it refers to as of the last transaction, its limit or 0)."""
    group = f"/sys/fs/btrfs/{_filesystem_id(subvolume)}/qgroups/0_{identity(subvolume)}"
    try:
        return _number(f"{group}/referenced"), _number(f"{group}/max_referenced")
    except FileNotFoundError:
        return 0, 0


def _number(path: str) -> int:
    with open(path, "rb", buffering=0) as file:
        return int(file.read())


def _filesystem_id(descriptor: int) -> str:
    buffer = bytearray(1024)
    fcntl.ioctl(descriptor, _FS_INFO, buffer)
    digits = buffer[16:32].hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
