"""Paths inside a root that somebody hostile has prepared."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime_core.errors import InvalidArgument
from runtime_core.kernel import paths


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "root" / "sub").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    descriptor = os.open(tmp_path / "root", os.O_PATH | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize("target", ["../outside/secret", "/outside/secret", "../../../../../etc/passwd"])
def test_links_resolve_within_the_root(root: int, tmp_path: Path, target: str) -> None:
    """Neither ".." nor an absolute link leads out."""
    (tmp_path / "root" / "link").symlink_to(target)
    with pytest.raises(FileNotFoundError):
        paths.open_in_root(root, "/link", os.O_RDONLY)


def test_dot_dot_stops_at_the_root(root: int, tmp_path: Path) -> None:
    """As after chroot: ".." of the root is the root."""
    (tmp_path / "root" / "file").write_text("x")
    descriptor = paths.open_in_root(root, "../../../file", os.O_RDONLY)
    assert os.read(descriptor, 10) == b"x"
    os.close(descriptor)


def test_magic_links_are_refused(root: int, tmp_path: Path) -> None:
    """A link through /proc would be a door."""
    proc = tmp_path / "root" / "link"
    proc.symlink_to("/proc/self/root/etc")
    host = os.open("/", os.O_PATH)
    with pytest.raises(OSError):
        paths.open_in_root(host, "/proc/self/root/etc/passwd", os.O_RDONLY)
    os.close(host)


def test_directories_are_made_within(root: int, tmp_path: Path) -> None:
    """Component by component, through links that stay inside; the mode is the one asked for."""
    (tmp_path / "root" / "link").symlink_to("/sub")
    os.close(paths.make_directories(root, "/link/a/b", 0o750))
    assert (tmp_path / "root" / "sub" / "a" / "b").is_dir()


@pytest.mark.parametrize("path", ["..", "a/../../b", "/a/.."])
def test_dot_dot_is_not_made(root: int, path: str) -> None:
    """A path to be made is plain."""
    with pytest.raises(InvalidArgument):
        paths.make_directories(root, path)


@pytest.mark.parametrize("target", ["/outside/new", "../outside/new", "../../../../../../tmp/trivet-test-new"])
def test_dangling_links_make_nothing_outside(root: int, tmp_path: Path, target: str) -> None:
    """CVE-2024-45310: no empty directory or file appears on the host."""
    (tmp_path / "root" / "link").symlink_to(target)
    for make in (paths.make_directories, paths.make_file):
        with pytest.raises(OSError):
            os.close(make(root, "/link"))
    assert os.listdir(tmp_path / "outside") == ["secret"]
    assert not os.path.exists("/tmp/trivet-test-new")


def test_file_is_made_once(root: int, tmp_path: Path) -> None:
    """An existing file is opened, not emptied."""
    (tmp_path / "root" / "sub" / "file").write_text("x")
    os.close(paths.make_file(root, "/sub/file"))
    os.close(paths.make_file(root, "/new/file"))
    assert (tmp_path / "root" / "sub" / "file").read_text() == "x"
    assert (tmp_path / "root" / "new" / "file").read_text() == ""


def test_reading_is_bounded(root: int, tmp_path: Path) -> None:
    """CVE-2025-4437: a huge passwd is an error, and so is a fifo."""
    (tmp_path / "root" / "big").write_bytes(b"x" * 101)
    descriptor = paths.open_in_root(root, "big", os.O_RDONLY)
    with pytest.raises(InvalidArgument, match="larger than 100"):
        paths.read_bounded(descriptor, 100, "/big")
    os.close(descriptor)
    descriptor = paths.open_in_root(root, "sub", os.O_RDONLY)
    with pytest.raises(InvalidArgument, match="not a regular file"):
        paths.read_bounded(descriptor, 100, "/sub")
    os.close(descriptor)
