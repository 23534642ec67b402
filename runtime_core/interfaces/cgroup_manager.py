"""The contract of `trivet.cgroup`: resource control and statistics for a tree of processes.

A cgroup is named by its absolute path inside the hierarchy, e.g. /kubepods/podX/<container id>;
the driver maps it to one directory (v2) or one per controller (v1). Resources are the
OCI runtime spec's `linux.resources` object. Drivers are loaded in the monitor too, so
they take the standard library alone and no logging.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class CgroupManager(Protocol):
        """The contract: runtime_core/testing/cgroup_contract.py."""

        def create(self, path: str, resources: dict[str, Any]) -> list[str]:
            """Make the cgroup (and missing parents; cpuset filled from the parent) and set its limits.

            Returns the directories that were newly made below the first existing ancestor. A
            resource whose controller the machine lacks is an error when it was asked for
            (hugetlb excepted). On error what was made is removed."""
            ...

        def update(self, path: str, resources: dict[str, Any]) -> None:
            """Change limits of an existing cgroup; on error the earlier limits stand again. A memory limit without
            `swap` leaves the room for swap as it is; without a memory limit there is none for swap either."""
            ...

        def exists(self, path: str) -> bool:
            """Whether the cgroup is there."""
            ...

        def attach(self, path: str, pid: int) -> None:
            """Move a process in; 0 is the calling one, which is single-threaded then and far cheaper to move."""
            ...

        def processes(self, path: str) -> list[int]:
            """PIDs in it and below it; [] when it is gone."""
            ...

        def kill(self, path: str) -> None:
            """SIGKILL to everything in it and below, until empty (cgroup.kill, or freeze-kill-thaw)."""
            ...

        def destroy(self, path: str) -> None:
            """Kill what is in it and remove it with its children. Idempotent."""
            ...

        def freeze(self, path: str) -> None:
            """Stop all processes of the cgroup; returns when they stand still."""
            ...

        def thaw(self, path: str) -> None:
            """Undo `freeze`. Idempotent."""
            ...

        def statistics(self, path: str) -> dict[str, int]:
            """Flat numbers: cpu_usage_ns, cpu_throttled_periods, memory_usage, memory_working_set,
            memory_rss, memory_available (0 = no limit), memory_page_faults, memory_major_page_faults,
            swap_usage, swap_available, pids_current, pids_limit. A controller that is missing leaves its keys out."""
            ...

        def oom_kills(self, path: str) -> int:
            """How many processes of it the OOM killer took so far."""
            ...

        def oom_descriptor(self, path: str) -> int:
            """A descriptor that polls readable (v1, an eventfd) or EPOLLPRI (v2, memory.events) at an OOM; -1: none."""
            ...
else:

    class CgroupManager:  # the cold half never needs the Protocol itself
        pass
