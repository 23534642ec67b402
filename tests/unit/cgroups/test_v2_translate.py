"""OCI resources as writes to cgroup v2 files, by table."""

from __future__ import annotations

from typing import Any

import pytest

from runtime_core.cgroups.v2_translate import weight_of_shares, writes
from runtime_core.errors import InvalidArgument

_GIB = 1 << 30


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, []),
        ({"memory": {"limit": _GIB}}, [("memory.max", str(_GIB))]),
        ({"memory": {"limit": _GIB, "swap": _GIB}}, [("memory.max", str(_GIB)), ("memory.swap.max", "0")]),
        ({"memory": {"limit": _GIB, "swap": 3 * _GIB}}, [("memory.max", str(_GIB)), ("memory.swap.max", str(2 * _GIB))]),
        ({"memory": {"limit": _GIB, "swap": -1}}, [("memory.max", str(_GIB)), ("memory.swap.max", "max")]),
        ({"memory": {"limit": -1}}, [("memory.max", "max"), ("memory.swap.max", "max")]),
        ({"memory": {"limit": -1, "swap": _GIB}}, [("memory.max", "max"), ("memory.swap.max", str(_GIB))]),
        ({"memory": {"reservation": 4096}}, [("memory.low", "4096")]),
        ({"cpu": {"shares": 1024}}, [("cpu.weight", "100")]),
        ({"cpu": {"quota": 50000, "period": 100000}}, [("cpu.max", "50000 100000")]),
        ({"cpu": {"quota": 50000}}, [("cpu.max", "50000")]),
        ({"cpu": {"quota": -1, "period": 100000}}, [("cpu.max", "max 100000")]),
        ({"cpu": {"period": 100000}}, [("cpu.max", "max 100000")]),
        ({"cpu": {"quota": 50000, "burst": 20000}}, [("cpu.max", "50000"), ("cpu.max.burst", "20000")]),
        ({"cpu": {"idle": 1}}, [("cpu.idle", "1")]),
        ({"cpu": {"cpus": "0-1", "mems": "0"}}, [("cpuset.cpus", "0-1"), ("cpuset.mems", "0")]),
        ({"cpu": {"cpus": "", "shares": 0}}, []),
        ({"pids": {"limit": 100}}, [("pids.max", "100")]),
        ({"pids": {"limit": -1}}, [("pids.max", "max")]),
        ({"blockIO": {"weight": 10}}, [("io.weight", "default 1")]),
        ({"blockIO": {"weight": 1000}}, [("io.weight", "default 10000")]),
        ({"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 505}]}}, [("io.weight", "8:0 5000")]),
        (
            {
                "blockIO": {
                    "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1000}, {"major": 8, "minor": 16, "rate": 0}],
                    "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 20}],
                }
            },
            [("io.max", "8:0 rbps=1000 wiops=20"), ("io.max", "8:16 rbps=max")],
        ),
        ({"hugepageLimits": [{"pageSize": "2MB", "limit": 4096}]}, [("hugetlb.2MB.max", "4096")]),
        (
            {"memory": {"limit": _GIB}, "unified": {"memory.high": "1000", "io.max": "8:0 rbps=1\n8:16 wbps=2\n"}},
            [("memory.max", str(_GIB)), ("memory.high", "1000"), ("io.max", "8:0 rbps=1"), ("io.max", "8:16 wbps=2")],
        ),
    ],
)
def test_resources_become_writes(resources: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    """Every resource goes to its file in the words of v2, and to the controller that the file's name begins with."""
    found = writes(resources)
    assert [(file, value) for _controller, file, value in found] == expected
    assert all(file.startswith(f"{controller}.") for controller, file, _value in found)


@pytest.mark.parametrize(
    ("resources", "named"),
    [
        ({"memory": {"limit": "1"}}, "memory.limit"),
        ({"memory": {"swap": _GIB}}, "memory.swap"),
        ({"memory": {"limit": _GIB, "swap": 4096}}, "memory.swap"),
        ({"memory": {"swappiness": 10}}, "memory.swappiness"),
        ({"memory": {"disableOOMKiller": True}}, "memory.disableOOMKiller"),
        ({"cpu": {"shares": 1.5}}, "cpu.shares"),
        ({"blockIO": {"weight": 9}}, "blockIO.weight"),
        ({"unified": {"cgroup.procs": "1"}}, "cgroup.procs"),
        ({"unified": {"../memory.max": "1"}}, "../memory.max"),
        ({"unified": {"memory.max/..": "1"}}, "memory.max/.."),
        ({"unified": {"memory": "1"}}, "memory"),
        ({"unified": {"memory.max\n": "1"}}, "memory.max"),
    ],
)
def test_what_cannot_be_is_refused_by_name(resources: dict[str, Any], named: str) -> None:
    """The message names the field, or the key of unified."""
    with pytest.raises(InvalidArgument) as refused:
        writes(resources)
    assert named in str(refused.value)


@pytest.mark.parametrize(
    ("shares", "weight"),
    [(0, 1), (2, 1), (3, 2), (102, 17), (512, 59), (1024, 100), (2048, 174), (262143, 10000), (262144, 10000), (1 << 30, 10000)],
)
def test_weights_keep_ends_and_default(shares: int, weight: int) -> None:
    """2, 1024 and 262144 shares are 1, 100 and 10000; what is out of range is as its nearest end."""
    assert weight_of_shares(shares) == weight
