"""Every installed trivet.volume back end keeps its contract, on the file systems that it is made for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from runtime_core.interfaces.volume import VolumeBackend
from runtime_core.registry import installed, load_driver
from runtime_core.testing.volume_contract import VolumeContract
from runtime_core.testing.volume_file_systems import file_system_directory


@dataclass(frozen=True)
class Case:
    backend: str
    #: file system that the directory lies on, "" for that of the temporary directory
    below: str
    fs_type: str = ""
    parameters: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return "-".join(filter(None, (self.backend, self.below, self.fs_type, *(value for _key, value in self.parameters))))


CASES = [
    Case("loop", "", "ext4"),
    Case("loop", "xfs", "ext4"),
    Case("loop", "xfs", "xfs"),
    Case("btrfs", "btrfs"),
    Case("directory", "ext4-quota"),
    Case("directory", "xfs-quota"),
    Case("directory", "", parameters=(("enforcement", "none"),)),
    Case("directory", "xfs", parameters=(("enforcement", "none"),)),
]  # fmt: skip


def test_every_back_end_has_a_case() -> None:
    """One that is installed is tested."""
    assert {case.backend for case in CASES} >= {driver.name for driver in installed("volume")}


@pytest.mark.parametrize("case", CASES, ids=str)
class TestVolumes(VolumeContract):
    @pytest.fixture
    def directory(self, case: Case, tmp_path: Path) -> Iterator[Path]:
        with file_system_directory(tmp_path, case.below) as directory:
            yield directory

    @pytest.fixture
    def make_backend(self, case: Case, directory: Path) -> Callable[[], VolumeBackend]:
        return lambda: load_driver("volume", case.backend)(str(directory / "volumes"), {})

    @pytest.fixture
    def fs_type(self, case: Case) -> str:
        return case.fs_type

    @pytest.fixture
    def parameters(self, case: Case) -> dict[str, str]:
        return dict(case.parameters)

    @pytest.fixture
    def limited(self, case: Case) -> bool:
        return ("enforcement", "none") not in case.parameters
