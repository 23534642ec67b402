"""OCI `linux.resources` as writes to cgroup v1 files. Pure; kernel doc admin-guide/cgroup-v1."""

from __future__ import annotations

from runtime_core.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def writes(resources: dict[str, Any]) -> list[tuple[str, str, str]]:
    """All writes of a new cgroup, in the order in which they must be made."""
    return [
        *_devices(resources.get("devices") or []),
        *_memory(resources.get("memory") or {}),
        *_cpu(resources.get("cpu") or {}),
        *_pids(resources.get("pids") or {}),
        *_block_io(resources.get("blockIO") or {}),
        *_huge_pages(resources.get("hugepageLimits") or []),
    ]


def _memory(memory: dict[str, Any]) -> list[tuple[str, str, str]]:
    found = []
    for key, file in (
        ("limit", "memory.limit_in_bytes"),
        ("swap", "memory.memsw.limit_in_bytes"),
        ("reservation", "memory.soft_limit_in_bytes"),
        ("swappiness", "memory.swappiness"),
    ):
        value = memory.get(key)
        if value is not None:
            found.append(("memory", file, _number(value, f"memory.{key}")))
    if memory.get("disableOOMKiller"):
        found.append(("memory", "memory.oom_control", "1"))
    return found


def _cpu(cpu: dict[str, Any]) -> list[tuple[str, str, str]]:
    found = []
    for key, controller, file in (
        ("shares", "cpu", "cpu.shares"),
        ("period", "cpu", "cpu.cfs_period_us"),
        ("quota", "cpu", "cpu.cfs_quota_us"),
        ("burst", "cpu", "cpu.cfs_burst_us"),
        ("cpus", "cpuset", "cpuset.cpus"),
        ("mems", "cpuset", "cpuset.mems"),
    ):
        value = cpu.get(key)
        if value:
            found.append((controller, file, value if key in ("cpus", "mems") else _number(value, f"cpu.{key}")))
    return found


def _pids(pids: dict[str, Any]) -> list[tuple[str, str, str]]:
    limit = pids.get("limit")
    if limit is None:
        return []
    text = _number(limit, "pids.limit")
    return [("pids", "pids.max", "max" if limit <= 0 else text)]


def _block_io(block: dict[str, Any]) -> list[tuple[str, str, str]]:
    found = []
    for key, file in (
        ("throttleReadBpsDevice", "blkio.throttle.read_bps_device"),
        ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device"),
        ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device"),
        ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device"),
    ):
        for device in block.get(key) or ():
            found.append(("blkio", file, f"{device['major']}:{device['minor']} {device['rate']}"))
    return found


def _huge_pages(limits: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [
        ("hugetlb", f"hugetlb.{entry['pageSize']}.limit_in_bytes", _number(entry["limit"], "hugepageLimits")) for entry in limits
    ]


def _devices(rules: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    found = []
    for rule in rules:
        kind = rule.get("type") or "a"
        major, minor = (rule.get(key) for key in ("major", "minor"))
        text = f"{kind} {_or_any(major)}:{_or_any(minor)} {rule.get('access') or 'rwm'}"
        if kind == "a":
            text = "a"
        found.append(("devices", "devices.allow" if rule["allow"] else "devices.deny", text))
    return found


def _or_any(number: int | None) -> str:
    return "*" if number is None or number < 0 else str(number)


def _number(value: int, field: str) -> str:
    if not isinstance(value, int):
        raise InvalidArgument(f"linux.resources.{field}: {value!r} is not an integer")
    return str(value)
