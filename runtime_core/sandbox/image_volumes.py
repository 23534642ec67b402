"""The VOLUMEs of an image for one container: directories of its own, filled with what the image has there.

They hold the image's owners: a pod's user namespace sees them through an idmapped mount.
"""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Collection, Sequence

from runtime_core.errors import InvalidArgument, from_oserror
from runtime_core.interfaces.runtime import RootMount
from runtime_core.kernel import failpoint, paths


def make(directory: str, image: RootMount, destinations: Sequence[str], mounted: Collection[str]) -> dict[str, str]:
    """Destination → the directory below `directory` that is to be mounted there.

    `image` is a view of its layers. A destination that is where one of the paths `mounted` leads, by the image's
    symlinks, is left out. InvalidArgument names a destination that is no directory in the image.
    """
    try:
        os.makedirs(directory, 0o700)
        root = _mount(image)
        try:
            taken = {_identity(root, path) for path in mounted} - {None}
            wanted = [path for path in destinations if _identity(root, path) not in taken]
            return {path: _fill(root, path, f"{directory}/{number}") for number, path in enumerate(wanted)}
        finally:
            os.close(root)
    except OSError as error:
        raise from_oserror(error, "making the image's volumes") from error


def remove(directory: str) -> None:
    """Idempotent."""
    from runtime_core.volumes import tree  # here: most images have no volume

    try:
        tree.remove(directory)
    except FileNotFoundError:
        return  # no container has had one yet
    except OSError as error:
        raise from_oserror(error, f"removing the image's volumes {directory}") from error


def _mount(image: RootMount) -> int:
    from runtime_core.container import root_mount

    return root_mount.mount(dataclasses.asdict(image))


def _identity(root: int, path: str) -> tuple[int, int] | None:
    """Device and inode of what is there in the image."""
    try:
        descriptor = paths.open_in_root(root, path, os.O_PATH)
    except OSError as error:
        if paths.is_missing(error) or error.errno == errno.ELOOP:
            return None
        raise
    try:
        status = os.fstat(descriptor)
        return status.st_dev, status.st_ino
    finally:
        os.close(descriptor)


def _fill(root: int, path: str, directory: str) -> str:
    from runtime_core.volumes import tree

    os.mkdir(directory, 0o755)
    os.chmod(directory, 0o755)
    failpoint.hit("volume.made")
    if _identity(root, path) == _identity(root, "/"):
        raise InvalidArgument(f"the image's Volumes: {path!r} is the root itself")
    try:
        source = paths.open_in_root(root, path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return directory
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        raise InvalidArgument(f"the image's Volumes: {path!r} is not a directory in the image") from None
    try:
        target = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            tree.copy(source, target, float("inf"))
        finally:
            os.close(target)
    finally:
        os.close(source)
    return directory
