"""trivet-csi under hostile calls: every one is refused or served, live volumes keep their data, and nothing is left."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from csi_driver.api.v1 import csi_pb2 as csi
from e2e.wait import wait_for
from runtime_core.testing.tools import require_program
from runtime_core.testing.volume_file_systems import file_system_directory
from tests.support.csi_fuzz import CsiFuzz, Report
from tests.support.csi_pods import Pods, pods

#: of all back ends together; `./run e2e storm` gives more
_SECONDS = float(os.environ.get("TRIVET_FUZZ_SECONDS", "24"))
#: the short form makes the same calls each time; a long one makes others
_SEED = int(os.environ.get("TRIVET_FUZZ_SEED", time.time_ns() % 10**9 if "TRIVET_FUZZ_SECONDS" in os.environ else 20261201))


@dataclass(frozen=True, kw_only=True)
class Case:
    backend: str
    #: see runtime_core/testing/volume_file_systems.py
    below: str
    kinds: tuple[str, ...] = ("mount", "block")
    parameters: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.backend


_CASES = [
    Case(backend="loop", below=""),
    Case(backend="btrfs", below="btrfs"),
    Case(backend="directory", below="xfs", kinds=("mount",), parameters={"enforcement": "none"}),
]


@pytest.fixture(params=_CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture
def made(case: Case, tmp_path: Path) -> Iterator[Pods]:
    require_program("mkfs.ext4", "e2fsprogs")
    (tmp_path / "disk").mkdir()
    with (
        file_system_directory(tmp_path / "disk", case.below) as root,
        pods(tmp_path, backend=case.backend, root=str(root)) as made,
    ):
        yield made


@pytest.mark.timeout(_SECONDS + 80)
def test_hostile_calls_are_refused_and_leave_nothing(case: Case, made: Pods) -> None:
    """No INTERNAL, no lost connection; live volumes live on; what the driver has is what it had before."""
    fuzz = CsiFuzz(made, case.parameters)
    fuzz.open(*case.kinds)
    _start_all_threads(made)
    fuzz.run(1, seed=0)  # what comes with the first calls
    before = fuzz.footprint()
    report = fuzz.run(_SECONDS / len(_CASES), _SEED)
    assert not report.findings, _told(report)
    assert fuzz.damaged() == []
    assert "Traceback" not in made.daemon.log() and "unforeseen" not in made.daemon.log()
    wait_for("nothing is left", lambda: not fuzz.footprint() - before, 20)


def _start_all_threads(made: Pods) -> None:
    """A server's threads come as calls come at once."""
    with ThreadPoolExecutor(80) as pool:
        calls = [pool.submit(made.daemon.identity.Probe, csi.ProbeRequest()) for _number in range(400)]
        assert all(call.result().ready.value for call in calls)


def _told(report: Report) -> str:
    first = "\n".join(f"{f.rpc} {f.seed} {f.code} {f.details}\n    {f.done}" for f in report.findings[:20])
    return f"seed {_SEED}: {len(report.findings)} of {report.calls.total()} calls\n{first}"
