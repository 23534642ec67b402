"""LinuxContainerResources to OCI linux.resources and back. Pure."""

from __future__ import annotations

import re
from typing import Any

from cri.api.v1 import api_pb2 as api
from runtime_core.errors import InvalidArgument

#: -1 is no limit where there is one
_LEAST = {"cpu_period": 0, "cpu_shares": 0, "cpu_quota": -1, "memory_limit_in_bytes": 0, "memory_swap_limit_in_bytes": -1}
_PAGE_SIZE = re.compile(r"[1-9][0-9]*[KMG]B")


def oci_resources(resources: api.LinuxContainerResources, field: str, *, is_v2: bool) -> dict[str, Any]:
    """Zero means unset. InvalidArgument naming the field for what cannot be."""
    for name, least in _LEAST.items():
        if getattr(resources, name) < least:
            raise InvalidArgument(f"{field}.{name}: {getattr(resources, name)} is below {least}")
    for number, huge in enumerate(resources.hugepage_limits):
        if not _PAGE_SIZE.fullmatch(huge.page_size):
            raise InvalidArgument(f"{field}.hugepage_limits[{number}].page_size: {huge.page_size!r} is not like '2MB'")
    if resources.unified and not is_v2:
        raise InvalidArgument(f"{field}.unified: this node has cgroup v1")
    if not -1000 <= resources.oom_score_adj <= 1000:
        raise InvalidArgument(f"{field}.oom_score_adj: {resources.oom_score_adj} is not within -1000..1000")
    cpu = {
        "shares": resources.cpu_shares,
        "period": resources.cpu_period,
        "quota": resources.cpu_quota,
        "cpus": resources.cpuset_cpus,
        "mems": resources.cpuset_mems,
    }
    limit, swap = resources.memory_limit_in_bytes, resources.memory_swap_limit_in_bytes
    if limit and swap > 0 and swap < limit:
        raise InvalidArgument(f"{field}.memory_swap_limit_in_bytes: {swap} is below the memory limit {limit}")
    found: dict[str, Any] = {
        "cpu": {key: value for key, value in cpu.items() if value},
        "memory": {key: value for key, value in (("limit", limit), ("swap", swap)) if value},
    }
    if resources.hugepage_limits:
        found["hugepageLimits"] = [{"pageSize": h.page_size, "limit": h.limit} for h in resources.hugepage_limits]
    if resources.unified:
        found["unified"] = dict(resources.unified)
    return {key: value for key, value in found.items() if value}


def merged(present: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """`present` with what `change` sets. A memory limit alone leaves the room for swap, which OCI counts with it."""
    found = dict(present)
    for key, value in change.items():
        found[key] = {**present.get(key, {}), **value} if isinstance(value, dict) else value
    memory, changed = present.get("memory") or {}, change.get("memory") or {}
    if "limit" in changed and "swap" not in changed and memory.get("swap", -1) >= 0:
        found["memory"]["swap"] = changed["limit"] + memory["swap"] - memory.get("limit", memory["swap"])
    return found


def cri_resources(resources: dict[str, Any], oom_score_adj: int) -> api.ContainerResources:
    cpu, memory = resources.get("cpu") or {}, resources.get("memory") or {}
    return api.ContainerResources(
        linux=api.LinuxContainerResources(
            cpu_shares=cpu.get("shares", 0),
            cpu_period=cpu.get("period", 0),
            cpu_quota=cpu.get("quota", 0),
            cpuset_cpus=cpu.get("cpus", ""),
            cpuset_mems=cpu.get("mems", ""),
            memory_limit_in_bytes=memory.get("limit", 0),
            memory_swap_limit_in_bytes=memory.get("swap", 0),
            oom_score_adj=oom_score_adj,
            hugepage_limits=[
                api.HugepageLimit(page_size=h["pageSize"], limit=h["limit"]) for h in resources.get("hugepageLimits") or ()
            ],
            unified=resources.get("unified") or {},
        )
    )
