"""Paths inside a root that somebody hostile has prepared."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
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


@pytest.mark.parametrize(
    ("links", "path", "made"),
    [
        ({"link": "/outside/new"}, "/link", "outside/new"),
        ({"link": "../outside/new"}, "/link", "outside/new"),
        ({"link": "../../../../../../tmp/trivet-test-new"}, "/link", "tmp/trivet-test-new"),
        ({"link": "/gone"}, "/link/a/b", "gone/a/b"),
        ({"link": "./gone//x"}, "//./link/y", "gone/x/y"),
        ({"link": "missing/../gone"}, "/link", "gone"),
        ({"sub/link": "../gone/x"}, "/sub/link/y", "gone/x/y"),
        ({"sub/link": "gone"}, "/sub/link", "sub/gone"),
        ({"a": "b", "b": "/sub/c", "sub/c": "../d", "d": "e/f"}, "/a/g", "e/f/g"),
        ({"a": "/sub", "sub/b": "../c/d"}, "/a/b/e", "c/d/e"),
        ({"a": "b/c", "b": "gone"}, "/a", "gone/c"),
        ({str(n): str(n + 1) for n in range(39)}, "/0", "39"),
    ],
)
@pytest.mark.parametrize("make", [paths.make_directories, paths.make_file])
def test_dangling_links_are_followed_within_the_root(
    root: int, tmp_path: Path, links: dict[str, str], path: str, made: str, make: Callable[[int, str], int]
) -> None:
    """What a link names is made inside, absolute, relative or in a chain; nothing outside (CVE-2024-45310)."""
    for name, target in links.items():
        (tmp_path / "root" / name).symlink_to(target)
    found = make(root, path)
    there = tmp_path / "root" / made
    assert os.path.samestat(os.fstat(found), os.lstat(there))
    os.close(found)
    assert there.is_dir() == (make is paths.make_directories) and there.is_file() == (make is paths.make_file)
    assert os.listdir(tmp_path / "outside") == ["secret"]
    assert not os.path.exists("/tmp/trivet-test-new")
    again = make(root, path)
    assert os.path.samestat(os.fstat(again), os.lstat(there))
    os.close(again)


@pytest.mark.parametrize(
    ("links", "path", "reason"),
    [
        ({"a": "a"}, "/a", "in a circle"),
        ({"a": "/b", "b": "sub/../a"}, "/a/x/y", "in a circle"),
        ({"a": "gone/../a"}, "/a", "in a circle"),
        ({"a": "a/x"}, "/a", "in a circle"),
        ({str(n): str(n + 1) for n in range(60)}, "/0", "in a circle"),
        ({"a": "file/x"}, "/a", "not a directory"),
        ({}, "/file/x/y", "not a directory"),
        ({}, "/" + "x" * 256, "too long"),
        ({"a": "x" * 255 + "/" + "y" * 256}, "/a", "too long"),
        ({}, "/" + "/".join(["x" * 255] * 17), "too long"),
    ],
)
@pytest.mark.parametrize("make", [paths.make_directories, paths.make_file])
def test_paths_that_lead_nowhere(
    root: int, tmp_path: Path, links: dict[str, str], path: str, reason: str, make: Callable[[int, str], int]
) -> None:
    """Circles, too many links, files in between and lengths are the mistake of who named the path."""
    (tmp_path / "root" / "file").touch()
    for name, target in links.items():
        (tmp_path / "root" / name).symlink_to(target)
    with pytest.raises(OSError) as refused:
        make(root, path)
    told = paths.wrong_path(refused.value, "field")
    assert isinstance(told, InvalidArgument)
    assert str(told).startswith("field: ") and reason in str(told)


def test_a_link_that_changes_while_it_is_followed(root: int, tmp_path: Path) -> None:
    """Whoever swaps a dangling link gets nothing made outside of the root."""
    inside = tmp_path / "root"
    outside = tmp_path / "outside"
    (inside / "link").symlink_to("gone")
    swapper = os.fork()
    if swapper == 0:
        try:
            while True:
                for target in ("gone", "../outside/a", f"{outside}/b", "link", "sub"):
                    (inside / "new").symlink_to(target)
                    (inside / "new").rename(inside / "link")
        finally:
            os._exit(1)
    try:
        for number in range(300):
            try:
                os.close(paths.make_directories(root, f"/link/{number}/x"))
            except OSError:
                continue  # it was a circle, or was swapped between two steps
    finally:
        os.kill(swapper, signal.SIGKILL)
        os.waitpid(swapper, 0)
    assert os.listdir(outside) == ["secret"]


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
