"""What a daemon has of the machine: its processes with their descriptors, its mounts, its files, its cgroups. Blind to
other programs."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from runtime_core.kernel import mounts

_CGROUPS = Path("/sys/fs/cgroup")


def footprint(pid: int, directories: list[Path], cgroup: str = "") -> Counter[str]:
    """How many of each: process, descriptor and thread of `pid` and its descendants, by program; mount and file below
    `directories`; cgroup below `cgroup`. Two of them can be subtracted.
    """
    found: Counter[str] = Counter()
    for process, name in family(pid).items():
        found[f"process {name}"] += 1
        found[f"descriptor of {name}"] += _count(f"/proc/{process}/fd")
        found[f"thread of {name}"] += _count(f"/proc/{process}/task")
    for directory in directories:
        found.update(f"mount {point}" for point in mounts.current_mount_points() if f"{point}/".startswith(f"{directory}/"))
        found.update(f"file {path}" for path in _files(directory))
    if cgroup:
        found.update(f"cgroup {path}" for path in _cgroups(cgroup))
    return found


def family(pid: int) -> dict[int, str]:
    """`pid` and all its descendants, with the names of their programs."""
    parents, names = {}, {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            before, _, after = Path(f"/proc/{entry}/stat").read_text().rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if after.split()[0] not in "ZX":
            parents[int(entry)], names[int(entry)] = int(after.split()[1]), before.partition("(")[2]
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {member: names[member] for member in found if member in names}


def _count(path: str) -> int:
    try:
        return len(os.listdir(path))
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _files(directory: Path) -> list[str]:
    return [f"{folder}/{name}" for folder, names, files in os.walk(directory) for name in (*names, *files)]


def _cgroups(cgroup: str) -> list[str]:
    roots = [_CGROUPS, *(path for path in _CGROUPS.iterdir() if path.is_dir())]
    return [folder for root in roots for folder, _names, _files in os.walk(f"{root}{cgroup}")]
