"""Back ends whose volumes share a file system: btrfs and directory, beyond the contract."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from plugins.volumes.btrfs import BtrfsBackend
from plugins.volumes.directory import DirectoryBackend
from runtime_core.errors import FailedPrecondition, InvalidArgument
from runtime_core.interfaces.volume import Volume
from runtime_core.kernel import btrfs
from runtime_core.testing.volume_file_systems import file_system_directory

MIB = 1 << 20
VOLUME = Volume(id="v", size=16 * MIB, access="mount", fs_type="btrfs")


def test_btrfs_wants_btrfs(tmp_path: Path) -> None:
    """FailedPrecondition says so."""
    with file_system_directory(tmp_path, "xfs") as below, pytest.raises(FailedPrecondition, match="does not lie on btrfs"):
        BtrfsBackend(str(below / "root"), {})


def test_subvolumes_that_a_pod_made_go_with_the_volume(tmp_path: Path) -> None:
    """However deep, and nothing of them is left for the file system to hold."""
    with file_system_directory(tmp_path, "btrfs") as below:
        backend = BtrfsBackend(str(below / "root"), {})
        backend.create(VOLUME, None)
        path = below / "root" / "volumes" / "v" / "data"
        for name in ("one", "dir/two", "dir/two/three"):
            (path / name).parent.mkdir(exist_ok=True)
            parent = os.open((path / name).parent, os.O_RDONLY)
            btrfs.create(parent, (path / name).name)
            os.close(parent)
        (path / "dir" / "two" / "three" / "file").touch()
        backend.delete("v")
        assert os.listdir(below / "root" / "trash") == []
        left = subprocess.run(["btrfs", "subvolume", "list", str(below)], capture_output=True, text=True, check=True)
        assert left.stdout == ""


def test_a_full_volume_says_so(tmp_path: Path) -> None:
    """QuotaExceeded."""
    with file_system_directory(tmp_path, "btrfs") as below:
        backend = BtrfsBackend(str(below / "root"), {})
        backend.create(VOLUME, None)
        path = below / "root" / "volumes" / "v" / "data"
        with open(path / "file", "wb", buffering=0) as file:
            for chunk in (MIB, 4096):
                with pytest.raises(OSError, match="quota"):
                    while True:
                        file.write(os.urandom(chunk))
                        os.fsync(file.fileno())
        os.sync()
        assert [problem.reason for problem in backend.problems(VOLUME, "")] == ["QuotaExceeded"]


def test_a_snapshot_of_a_subvolume_has_no_block_view(tmp_path: Path) -> None:
    """FailedPrecondition, while one of a block volume has."""
    with file_system_directory(tmp_path, "btrfs") as below:
        backend = BtrfsBackend(str(below / "root"), {})
        backend.create(VOLUME, None)
        backend.snapshot([("s", VOLUME)])
        with pytest.raises(FailedPrecondition, match="no block view"):
            list(backend.allocated("s", 0))


def test_directories_without_a_quota_have_to_be_asked_for(tmp_path: Path) -> None:
    """InvalidArgument names the parameter."""
    with file_system_directory(tmp_path, "xfs") as below:
        backend = DirectoryBackend(str(below / "root"), {})
        for parameters in ({}, {"enforcement": "quota"}):
            with pytest.raises(InvalidArgument, match=r"parameters\.enforcement"):
                backend.check(Volume(id="v", size=MIB, access="mount", fs_type="xfs", parameters=parameters))
        backend.check(Volume(id="v", size=MIB, access="mount", fs_type="xfs", parameters={"enforcement": "none"}))
