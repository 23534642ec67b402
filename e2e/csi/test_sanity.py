"""csi-test's specs against trivet-csi, for each back end on a file system that suits it, beside containers that start and end."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from csi_driver.api.v1 import csi_pb2 as csi
from e2e.peers.build import build
from runtime_core.kernel import mounts
from runtime_core.testing.volume_file_systems import file_system_directory
from tests.support.csi_daemon import CsiDaemon, daemon
from tests.support.mount_copies import storm

_MIB = 1 << 20
_MINUTES = 10
#: marked as pending by csi-test itself, which calls it fragile; tests/unit/csi has the same promise
_PENDING = "pagination should detect volumes added between pages and accept tokens when the last volume from a page is deleted"
#: bytes before and after expansion: enough for an xfs, which grows while it is mounted where ext4 may not
_SIZE, _EXPANDED = 320 * _MIB, 512 * _MIB

#: MODIFY_VOLUME: a back end without mutable parameters has none
_MODIFY = ("ModifyVolume", "volume attribute class")


@dataclass(frozen=True, kw_only=True)
class Case:
    backend: str
    access: str
    #: see runtime_core/testing/volume_file_systems.py
    below: str = ""
    parameters: str = ""
    mutable_parameters: str = ""
    #: words of the specs that do not apply
    not_applicable: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "-".join(filter(None, (self.backend, self.access, self.below)))


_LOOP = {"backend": "loop", "mutable_parameters": "allocation: full\n"}
_CASES = [
    Case(access="mount", **_LOOP),  # type: ignore[arg-type]
    Case(access="mount", below="xfs", **_LOOP),  # type: ignore[arg-type]
    Case(access="block", **_LOOP),  # type: ignore[arg-type]
    Case(access="block", below="xfs", **_LOOP),  # type: ignore[arg-type]
    Case(backend="btrfs", access="mount", below="btrfs", not_applicable=_MODIFY),
    Case(backend="btrfs", access="block", below="btrfs", not_applicable=_MODIFY),
    Case(backend="directory", access="mount", below="ext4-quota", not_applicable=_MODIFY),
    Case(backend="directory", access="mount", below="xfs-quota", not_applicable=_MODIFY),
    Case(backend="directory", access="mount", parameters="enforcement: none\n", not_applicable=_MODIFY),
    Case(backend="directory", access="mount", below="xfs", parameters="enforcement: none\n", not_applicable=_MODIFY),
]


@pytest.fixture(params=_CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture
def driver(case: Case, tmp_path: Path) -> Iterator[CsiDaemon]:
    """On a disk of its own, in a mount namespace of its own; 7 volumes are few enough for the spec of the limit.

    All the while other programs clone that mount namespace and drop it, as on a node where pods come and go.
    """
    (tmp_path / "disk").mkdir()
    with (
        file_system_directory(tmp_path / "disk", case.below) as root,
        daemon(tmp_path, backend=case.backend, root=str(root), max_volumes=7) as driver,
        storm(),
    ):
        yield driver


def test_every_spec_that_applies_passes(case: Case, driver: CsiDaemon, tmp_path: Path) -> None:
    specs = _run(case, driver, tmp_path)
    failed = {name: spec for name, spec in specs.items() if spec["State"] not in ("passed", "skipped", "pending")}
    assert {name: spec["Failure"]["Message"] for name, spec in failed.items()} == {}
    (pending,) = [name for name, spec in specs.items() if spec["State"] == "pending"]
    assert pending.endswith(_PENDING)
    skipped = [name for name, spec in specs.items() if spec["State"] == "skipped"]
    assert [name for name in skipped if not any(words in name for words in case.not_applicable)] == []
    assert len(specs) > 90
    assert '"unforeseen"' not in driver.log() and '"INTERNAL"' not in driver.log()
    _check_nothing_is_left(driver)


def _run(case: Case, driver: CsiDaemon, directory: Path) -> dict[str, dict[str, Any]]:
    report = directory / "report.json"
    given: dict[str, object] = {
        "endpoint": f"unix://{driver.socket}", "stagingdir": driver.kubelet / "staging", "mountdir": driver.kubelet / "target",
        "testvolumeaccesstype": case.access, "testvolumesize": _SIZE, "testvolumeexpandsize": _EXPANDED,
        "testnodevolumeattachlimit": "true",
    }  # fmt: skip
    for name, text in (("testvolumeparameters", case.parameters), ("testvolumemutableparameters", case.mutable_parameters)):
        if text:
            (directory / name).write_text(text)
            given[name] = directory / name
    subprocess.run(
        [
            str(build("csi-sanity")),
            *(f"-csi.{name}={value}" for name, value in given.items()),
            f"-ginkgo.json-report={report}",
        ],
        stdout=subprocess.DEVNULL,
        timeout=_MINUTES * 60,
    )
    (suite,) = json.loads(report.read_text())
    return {
        " ".join((*spec["ContainerHierarchyTexts"], spec["LeafNodeText"])): spec
        for spec in suite["SpecReports"]
        if spec["LeafNodeType"] == "It"
    }


def _check_nothing_is_left(driver: CsiDaemon) -> None:
    assert driver.controller.ListVolumes(csi.ListVolumesRequest()).entries == []
    assert driver.controller.ListSnapshots(csi.ListSnapshotsRequest()).entries == []
    assert [one for one in mounts.current_mount_points() if str(driver.kubelet) in one] == []
