"""The mount table from /proc/self/mountinfo (proc(5)), which never waits for a file system."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

_ESCAPE = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Entry:
    major: int
    minor: int
    point: str
    #: of the mount
    options: frozenset[str]
    fs_type: str
    source: str
    #: of the file system
    super_options: frozenset[str]


def find_mount(point: str) -> Entry | None:
    """The topmost mount at `point`; None when nothing is mounted there."""
    found = None
    for entry in read_mounts():
        if entry.point == point:
            found = entry
    return found


def read_mounts() -> list[Entry]:
    with open("/proc/self/mountinfo", "rb") as file:
        return [_parse(line) for line in file.read().splitlines()]


def _parse(line: bytes) -> Entry:
    before, _dash, after = line.partition(b" - ")
    _id, _parent, device, _root, point, options, *_tags = before.split(b" ")
    fs_type, source, super_options = after.split(b" ")[:3]
    major, _colon, minor = device.partition(b":")
    return Entry(
        int(major),
        int(minor),
        os.fsdecode(_ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), point)),
        frozenset(options.decode().split(",")),
        fs_type.decode(),
        os.fsdecode(source),
        frozenset(os.fsdecode(super_options).split(",")),
    )
