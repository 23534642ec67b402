"""/etc/passwd as the image has it: what the layers say together, as overlayfs shows it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cri.container import image_files
from runtime_core.container import root_mount
from runtime_core.errors import InvalidArgument
from runtime_core.interfaces.runtime import RootMount
from runtime_core.kernel import paths


def _file(path: str, text: str) -> Callable[[Path], None]:
    def make(layer: Path) -> None:
        (layer / path).parent.mkdir(parents=True, exist_ok=True)
        (layer / path).write_text(text)

    return make


def _link(path: str, target: str) -> Callable[[Path], None]:
    def make(layer: Path) -> None:
        (layer / path).parent.mkdir(parents=True, exist_ok=True)
        (layer / path).symlink_to(target)

    return make


def _whiteout(path: str) -> Callable[[Path], None]:
    def make(layer: Path) -> None:
        (layer / path).parent.mkdir(parents=True, exist_ok=True)
        os.mknod(layer / path, 0o020000, 0)

    return make


def _opaque(path: str) -> Callable[[Path], None]:
    def make(layer: Path) -> None:
        (layer / path).mkdir(parents=True, exist_ok=True)
        os.setxattr(layer / path, "trusted.overlay.opaque", b"y")

    return make


_BASE = _file("etc/passwd", "base")


@pytest.mark.parametrize(
    ("layers", "content"),
    [
        ([[_BASE]], b"base"),
        ([[]], b""),
        ([[_BASE], [_file("etc/other", "")]], b"base"),
        ([[_BASE], [_file("etc/passwd", "upper")]], b"upper"),
        ([[_BASE], [_whiteout("etc/passwd")]], b""),
        ([[_BASE], [_whiteout("etc")]], b""),
        ([[_BASE], [_whiteout("etc")], [_file("etc/other", "")]], b""),
        ([[_BASE], [_opaque("etc")]], b""),
        ([[_BASE], [_opaque("etc"), _file("etc/passwd", "upper")]], b"upper"),
        ([[_BASE], [_file("etc", "no directory")]], b""),
        ([[_BASE], [_link("etc", "usr/etc")], [_file("usr/etc/passwd", "linked")]], b"linked"),
        ([[_file("usr/etc/passwd", "linked")], [_link("etc", "/usr/etc")]], b"linked"),
        ([[_file("usr/lib/passwd", "linked")], [_link("etc/passwd", "../usr/lib/passwd")]], b"linked"),
        ([[_link("etc/passwd", "/usr/lib/passwd")], [_file("usr/lib/passwd", "linked")]], b"linked"),
        ([[_link("etc/passwd", "../usr/lib/passwd"), _file("usr/lib/passwd", "linked")]], b"linked"),
        ([[_BASE], [_link("etc/passwd", "gone")]], b""),
        ([[_BASE], [_link("etc/passwd", "passwd")]], b""),
        ([[_link("etc/passwd", "/proc/self/root/etc/passwd")]], b""),
        ([[_link("etc/passwd", "../../../../../../../../etc/hostname")]], b""),
    ],
)
def test_the_layers_together(layers: list[list[Callable[[Path], None]]], content: bytes, tmp_path: Path) -> None:
    """Lowest first; and the kernel's own answer is the same."""
    lower = []
    for number, makers in enumerate(layers):
        layer = tmp_path / f"layer{number}"
        layer.mkdir()
        for make in makers:
            make(layer)
        lower.insert(0, str(layer))
    assert image_files.read(RootMount(type="overlay", lower=tuple(lower)), "etc/passwd") == content
    assert _as_mounted(lower) == content


def _as_mounted(lower: list[str]) -> bytes:
    tree = root_mount.mount({"type": "overlay", "lower": lower})
    try:
        descriptor = paths.open_in_root(tree, "etc/passwd", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return b""
    finally:
        os.close(tree)
    try:
        return os.read(descriptor, 100)
    finally:
        os.close(descriptor)


def test_a_root_that_is_no_overlay(tmp_path: Path) -> None:
    """Another snapshotter's directory."""
    _BASE(tmp_path)
    assert image_files.read(RootMount(type="bind", source=str(tmp_path)), "etc/passwd") == b"base"


@pytest.mark.parametrize("kind", ["fifo", "directory", "huge"])
def test_what_is_no_file_of_reasonable_size(kind: str, tmp_path: Path) -> None:
    """Refused by name, and nobody waits for a fifo (CVE-2025-4437)."""
    (tmp_path / "etc").mkdir()
    path = tmp_path / "etc" / "passwd"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.write_bytes(b"x" * (4 * 1024 * 1024 + 1))
    with pytest.raises(InvalidArgument, match="the image's /etc/passwd"):
        image_files.read(RootMount(type="overlay", lower=(str(tmp_path),)), "etc/passwd")
