"""Directories on file systems of a kind, for back ends of volumes: an image, mounted where nobody else sees it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runtime_core.kernel import loop_device, mounts
from runtime_core.testing.namespaces import mount_namespace
from runtime_core.testing.tools import require_program

_MIB = 1 << 20
#: size, command, package, options of the mount
_MAKE = {
    "xfs": (2048, ("mkfs.xfs", "-q", "-f"), "xfsprogs", ()),
    "xfs-quota": (2048, ("mkfs.xfs", "-q", "-f"), "xfsprogs", ("prjquota",)),
    "ext4-quota": (1024, ("mkfs.ext4", "-q", "-F", "-O", "project,quota"), "e2fsprogs", ("prjquota",)),
    "btrfs": (2048, ("mkfs.btrfs", "-q", "-f"), "btrfs-progs", ()),
}


@contextmanager
def file_system_directory(below: Path, kind: str) -> Iterator[Path]:
    """A directory on a file system of this kind, in a mount namespace of its own; "" for that of `below`."""
    with mount_namespace():
        if not kind:
            yield below
            return
        size, command, package, options = _MAKE[kind]
        image, target = below / "below.img", below / "below"
        target.mkdir()
        with open(image, "wb") as file:
            file.truncate(size * _MIB)
        subprocess.run(
            [require_program(command[0], package), *command[1:], str(image)], check=True, capture_output=True, timeout=60
        )
        number = loop_device.attach(str(image), read_only=False)
        try:
            _mount(number, kind, options, target)
            try:
                yield target
            finally:
                mounts.unmount_below(str(target))
        finally:
            loop_device.detach(number)
            image.unlink()


def _mount(number: int, kind: str, options: tuple[str, ...], target: Path) -> None:
    fs_type = kind.partition("-")[0]
    try:
        mounted = mounts.filesystem(fs_type, options, 0, loop_device.device_node(number))
    except OSError as error:
        pytest.skip(f"this kernel mounts no {fs_type} {' '.join(options)}: {error}")
    descriptor = os.open(target, os.O_PATH)
    try:
        mounts.attach(mounted, descriptor)
    finally:
        os.close(descriptor)
        os.close(mounted)
