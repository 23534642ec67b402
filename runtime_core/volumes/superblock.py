"""What the first bytes of an ext4 or xfs image tell: how large its file system is, and whether it is clean."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Superblock:
    fs_type: str
    #: bytes
    size: int
    #: False: e2fsck has to look at it before it is mounted
    clean: bool


def read(image: str) -> Superblock | None:
    """None when it holds neither."""
    with open(image, "rb", buffering=0) as file:
        head = os.pread(file.fileno(), 2048, 0)
    if head[:4] == b"XFSB":
        block_size, blocks = struct.unpack_from(">IQ", head, 4)
        return Superblock("xfs", block_size * blocks, True)  # its log is replayed by every mount
    block = head[1024:]
    if len(block) < 0x154 or struct.unpack_from("<H", block, 0x38)[0] != 0xEF53:
        return None
    incompatible = struct.unpack_from("<I", block, 0x60)[0]
    blocks = struct.unpack_from("<I", block, 4)[0]
    if incompatible & 0x80:  # INCOMPAT_64BIT
        blocks |= struct.unpack_from("<I", block, 0x150)[0] << 32
    state = struct.unpack_from("<H", block, 0x3A)[0]
    needs_recovery = incompatible & 0x4
    clean = state & 0x3 == 0x1 and not needs_recovery
    return Superblock("ext4", blocks * (1024 << struct.unpack_from("<I", block, 24)[0]), clean)
