"""What of /proc/self/mountinfo is below the kubelet's directory."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from runtime_core.kernel import loop_device, mounts
from runtime_core.kernel.decimal_number import parse_decimal

_PATH = "/proc/self/mountinfo"


@dataclass(frozen=True, slots=True)
class Mount:
    #: "major:minor"
    device: str
    #: of the file system, what of it is mounted
    root: str
    fs_type: str
    source: str


def mounts_below(kubelet_dir: Path) -> dict[str, Mount]:
    """Path, as the kubelet says it, → the topmost mount there."""
    with open(_PATH, "rb") as file:
        return parse_mountinfo(file.read(), str(kubelet_dir), os.path.realpath(kubelet_dir))


def parse_mountinfo(mountinfo: bytes, directory: str, real: str) -> dict[str, Mount]:
    """`real`: what the kernel calls `directory`."""
    found = {}
    for point, line in zip(mounts.mount_points(mountinfo), mountinfo.splitlines(), strict=True):
        if point.startswith(real.rstrip("/") + "/"):
            before, _, after = line.decode(errors="surrogateescape").partition(" - ")
            fields, (fs_type, source) = before.split(" "), after.split(" ")[:2]
            path = directory.rstrip("/") + point[len(real.rstrip("/")) :]
            found[path] = Mount(fields[2], fields[3], fs_type, source)
    return found


def is_driver_mount(mount: Mount, root: Path, volumes: Collection[str]) -> bool:
    """Whether the file system is in an image below `root`, which is ours alone, or of one of our `volumes`.

    The kernel tells the image's path as the mount namespace had it in which it was opened: that of a container
    which is gone, perhaps. The volume's id in it is still the same.
    """
    number = parse_decimal(mount.source.removeprefix("/dev/loop"))
    if number is None:
        return False
    backing = loop_device.backing_file(number).removesuffix(" (deleted)")
    return backing.startswith(os.path.realpath(root) + "/") or not set(backing.split("/")).isdisjoint(volumes)
