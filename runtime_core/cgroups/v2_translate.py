"""OCI `linux.resources` as writes to cgroup v2 files. Pure; kernel doc admin-guide/cgroup-v2.

Device rules are no file here but a program: see runtime_core/kernel/device_bpf.py.
"""

from __future__ import annotations

import math
import re

from runtime_core.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: CONTROLLER.NAME, in one directory; cgroup.* is the driver's own (a written cgroup.procs would move processes)
_KEY = re.compile(r"(?!cgroup\.)[a-z]+(\.[A-Za-z0-9_]+)+")
_V1_ALONE = ("kernel", "kernelTCP", "swappiness", "disableOOMKiller")
_MIN_SHARES, _MAX_SHARES = 2, 262144
_THROTTLES = (
    ("throttleReadBpsDevice", "rbps"), ("throttleWriteBpsDevice", "wbps"),
    ("throttleReadIOPSDevice", "riops"), ("throttleWriteIOPSDevice", "wiops"),
)  # fmt: skip


def writes(resources: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(controller, file, value), in the order in which a new cgroup takes them; `unified` has the last word."""
    return [
        *_memory(resources.get("memory") or {}),
        *_cpu(resources.get("cpu") or {}),
        *_pids(resources.get("pids") or {}),
        *_block_io(resources.get("blockIO") or {}),
        *_huge_pages(resources.get("hugepageLimits") or []),
        *_unified(resources.get("unified") or {}),
    ]


def weight_of_shares(shares: int) -> int:
    """cpu.weight 1..10000 of cpu.shares 2..262144: the curve through both ends and the two defaults (1024, 100).

    The formula of runc since 1.3.2 and crun since 1.23; the linear one of before made 39 of the default.
    """
    if shares <= _MIN_SHARES:
        return 1
    if shares >= _MAX_SHARES:
        return 10000
    exponent = math.log2(shares)
    return math.ceil(10 ** ((exponent * exponent + 125 * exponent) / 612 - 7 / 34))


def _memory(memory: dict[str, Any]) -> list[tuple[str, str, str]]:
    for key in _V1_ALONE:
        if memory.get(key):
            raise InvalidArgument(f"linux.resources.memory.{key}: cgroup v2 has nothing like it")
    limit, swap = (_number(memory.get(key), f"memory.{key}") for key in ("limit", "swap"))
    found = []
    if limit is not None:
        found.append(("memory", "memory.max", _or_max(limit)))
    if swap is not None or limit == -1:
        found.append(("memory", "memory.swap.max", _swap(swap, limit)))
    reservation = _number(memory.get("reservation"), "memory.reservation")
    if reservation is not None:
        found.append(("memory", "memory.low", _or_max(reservation)))
    return found


def _swap(swap: int | None, limit: int | None) -> str:
    """OCI's swap is memory and swap together, v2's is swap alone."""
    if swap is None or swap == -1:
        return "max"
    if limit is None:
        raise InvalidArgument("linux.resources.memory.swap: without memory.limit nothing says how much of it is swap")
    if limit == -1:
        return str(swap)
    if swap < limit:
        raise InvalidArgument(f"linux.resources.memory.swap: {swap} is below memory.limit {limit}")
    return str(swap - limit)


def _cpu(cpu: dict[str, Any]) -> list[tuple[str, str, str]]:
    found = []
    shares, quota, period, burst, idle = (
        _number(cpu.get(key), f"cpu.{key}") for key in ("shares", "quota", "period", "burst", "idle")
    )
    if shares:
        found.append(("cpu", "cpu.weight", str(weight_of_shares(shares))))
    if quota or period:
        text = str(quota) if quota and quota > 0 else "max"
        found.append(("cpu", "cpu.max", f"{text} {period}" if period else text))
    if burst is not None:
        found.append(("cpu", "cpu.max.burst", str(burst)))
    if idle is not None:
        found.append(("cpu", "cpu.idle", str(idle)))
    for key in ("cpus", "mems"):
        if cpu.get(key):
            found.append(("cpuset", f"cpuset.{key}", cpu[key]))
    return found


def _pids(pids: dict[str, Any]) -> list[tuple[str, str, str]]:
    limit = _number(pids.get("limit"), "pids.limit")
    if limit is None:
        return []
    return [("pids", "pids.max", str(limit) if limit > 0 else "max")]


def _block_io(block: dict[str, Any]) -> list[tuple[str, str, str]]:
    found = []
    weight = _number(block.get("weight"), "blockIO.weight")
    if weight:
        found.append(("io", "io.weight", f"default {_io_weight(weight)}"))
    for entry in block.get("weightDevice") or ():
        if entry.get("weight"):
            found.append(("io", "io.weight", f"{entry['major']}:{entry['minor']} {_io_weight(entry['weight'])}"))
    limits: dict[str, list[str]] = {}
    for key, name in _THROTTLES:
        for entry in block.get(key) or ():
            # No limit is written as one of 0 in OCI, as "max" in v2.
            limits.setdefault(f"{entry['major']}:{entry['minor']}", []).append(f"{name}={entry['rate'] or 'max'}")
    return found + [("io", "io.max", f"{device} {' '.join(words)}") for device, words in limits.items()]


def _io_weight(weight: int) -> int:
    """io.weight 1..10000 of blkio's 10..1000."""
    if not 10 <= weight <= 1000:
        raise InvalidArgument(f"linux.resources.blockIO.weight: {weight} is not within 10..1000")
    return 1 + (weight - 10) * 9999 // 990


def _huge_pages(limits: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [("hugetlb", f"hugetlb.{entry['pageSize']}.max", str(_number(entry["limit"], "hugepageLimits"))) for entry in limits]


def _unified(unified: dict[str, str]) -> list[tuple[str, str, str]]:
    found = []
    for key, value in unified.items():
        if not _KEY.fullmatch(key):
            raise InvalidArgument(f"linux.resources.unified: {key!r} is not the name of a controller's file")
        # A file that is keyed by device takes one line at a time.
        for line in value.strip().split("\n"):
            found.append((key.partition(".")[0], key, line))
    return found


def _or_max(limit: int) -> str:
    return "max" if limit == -1 else str(limit)


def _number(value: Any, field: str) -> int | None:
    if value is not None and not isinstance(value, int):
        raise InvalidArgument(f"linux.resources.{field}: {value!r} is not an integer")
    return value
