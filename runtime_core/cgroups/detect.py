"""Which cgroup driver fits this machine: where is the memory controller?"""

from __future__ import annotations

from pathlib import Path

from runtime_core.errors import FailedPrecondition


def detect_version(mountinfo: str = "") -> str:
    """ "v1" or "v2"; FailedPrecondition when neither hierarchy has the memory controller."""
    text = mountinfo or Path("/proc/self/mountinfo").read_text()
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, rest = after.partition(" ")
        if kind == "cgroup" and "memory" in rest.rpartition(" ")[2].split(","):
            return "v1"
        if kind == "cgroup2":
            controllers = Path(before.split(" ")[4], "cgroup.controllers")
            if controllers.is_file() and "memory" in controllers.read_text().split():
                return "v2"
    raise FailedPrecondition("no cgroup hierarchy of this machine has the memory controller")
