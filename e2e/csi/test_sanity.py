"""csi-test's specs against trivet-csi, for each back end on a file system that suits it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from csi_driver.api.v1 import csi_pb2 as csi
from e2e.peers.build import build
from runtime_core.kernel import capabilities, mounts
from runtime_core.registry import installed
from runtime_core.testing.tools import need
from tests.support.csi_daemon import CsiDaemon, daemon
from tests.support.csi_node import own_mounts

_MIB = 1 << 20
_DISK = 4 << 30
_MINUTES = 10
#: marked as pending by csi-test itself, which calls it fragile; tests/unit/csi has the same promise
_PENDING = "pagination should detect volumes added between pages and accept tokens when the last volume from a page is deleted"
#: growing a mounted ext4 takes CAP_SYS_RESOURCE in the initial user namespace
_NEEDS_SYS_RESOURCE = "should work if node-expand is called after node-publish"

#: MODIFY_VOLUME: a back end without mutable parameters has none
_MODIFY = ("ModifyVolume", "volume attribute class")


@dataclass(frozen=True, kw_only=True)
class Case:
    backend: str
    access: str
    #: what makes the file system below, where the Debian package of that name is needed, and mount options
    mkfs: tuple[str, str] = ("mkfs.ext4", "e2fsprogs")
    options: str = ""
    mutable_parameters: str = ""
    #: specs that fail where a right is missing
    grows_ext4: bool = False
    #: words of the specs that do not apply
    not_applicable: tuple[str, ...] = ()


_CASES = [
    Case(backend="loop", access="mount", mutable_parameters="allocation: full\n", grows_ext4=True),
    Case(backend="loop", access="block", mutable_parameters="allocation: full\n"),
    Case(backend="loop", access="block", mutable_parameters="allocation: full\n", mkfs=("mkfs.xfs", "xfsprogs")),
    Case(backend="btrfs", access="mount", mkfs=("mkfs.btrfs", "btrfs-progs"), not_applicable=_MODIFY),
    Case(backend="directory", access="mount", mkfs=("mkfs.xfs", "xfsprogs"), options="prjquota"),
]


@pytest.fixture(params=_CASES, ids=lambda case: f"{case.backend}-{case.access}-{case.mkfs[0]}")
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture
def driver(case: Case, tmp_path: Path) -> Iterator[CsiDaemon]:
    """On a disk of its own, in a mount namespace of its own."""
    with own_mounts(), ExitStack() as undo:
        root = tmp_path / "root"
        root.mkdir()
        undo.enter_context(_disk(tmp_path / "disk", root, case))
        # 7: small enough to be reached by the spec of the limit
        yield undo.enter_context(daemon(tmp_path, backend=case.backend, max_volumes=7))


def test_every_spec_that_applies_passes(case: Case, driver: CsiDaemon, tmp_path: Path) -> None:
    specs = _run(case, driver, tmp_path)
    failed = {name: spec for name, spec in specs.items() if spec["State"] not in ("passed", "skipped", "pending")}
    if case.grows_ext4 and "CAP_SYS_RESOURCE" not in capabilities.machine():
        (name,) = [name for name in failed if name.endswith(_NEEDS_SYS_RESOURCE)]
        assert "CAP_SYS_RESOURCE" in failed.pop(name)["Failure"]["Message"]
    assert {name: spec["Failure"]["Message"] for name, spec in failed.items()} == {}
    (pending,) = [name for name, spec in specs.items() if spec["State"] == "pending"]
    assert pending.endswith(_PENDING)
    skipped = [name for name, spec in specs.items() if spec["State"] == "skipped"]
    assert [name for name in skipped if not any(words in name for words in case.not_applicable)] == []
    assert len(specs) > 90
    assert '"unforeseen"' not in driver.log() and '"INTERNAL"' not in driver.log()
    _check_nothing_is_left(driver)


def _run(case: Case, driver: CsiDaemon, directory: Path) -> dict[str, dict[str, Any]]:
    report, parameters = directory / "report.json", directory / "mutable.yaml"
    parameters.write_text(case.mutable_parameters)
    paths = {"endpoint": driver.socket, "staging": driver.kubelet / "staging", "target": driver.kubelet / "target"}
    subprocess.run(
        [
            str(build("csi-sanity")),
            *(f"-{name}={value}" for name, value in paths.items()),
            f"-access={case.access}",
            f"-size={64 * _MIB}",
            f"-expanded-size={96 * _MIB}",
            *([f"-mutable-parameters={parameters}"] if case.mutable_parameters else []),
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
    assert [one for one in mounts.mounted() if str(driver.kubelet) in one] == []


@contextmanager
def _disk(image: Path, where: Path, case: Case) -> Iterator[None]:
    if case.backend not in {found.name for found in installed("volume")}:
        pytest.skip(f"the back end {case.backend} is not installed")
    with image.open("wb") as file:
        file.truncate(_DISK)
    subprocess.run([need(*case.mkfs), *(["-q"] if case.mkfs[0] != "mkfs.ext4" else ["-qF"]), str(image)], check=True)
    options = ",".join(filter(None, ("loop", case.options)))
    subprocess.run([need("mount", "mount"), "-o", options, str(image), str(where)], check=True)
    try:
        yield
    finally:
        mounts.unmount_below(str(where))
