"""Small files as an image has them, read from its layers: the image itself is mounted only where they need one another."""

from __future__ import annotations

import errno
import os

from runtime_core.interfaces.runtime import RootMount
from runtime_core.kernel import paths, syscalls

_MOST_BYTES = 4 * 1024 * 1024
_OPAQUE = "trusted.overlay.opaque"
_READ = os.O_RDONLY | os.O_NONBLOCK
_IN_LAYER = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_SYMLINKS


def read(root: RootMount, path: str) -> bytes:
    """Content of the file `path`, such as "etc/passwd"; b"" where the image has none.

    InvalidArgument when it is no regular file, or larger than 4 MiB.
    """
    for layer in root.lower:
        directory = os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            found = syscalls.openat2(directory, path, _READ, 0, _IN_LAYER)
        except OSError as error:
            if not paths.is_missing(error):
                return b"" if error.errno == errno.ENXIO else _read_merged(root, path)  # a whiteout's device; a link
            if _hides_those_below(directory, os.path.dirname(path)):
                return b""
            continue
        finally:
            os.close(directory)
        return _content(found, path)
    return b"" if root.lower else _read_merged(root, path)


def _hides_those_below(layer: int, path: str) -> bool:
    """Whether the directory `path` of the layer is another's end: a whiteout, a file, or opaque (kernel doc overlayfs)."""
    try:
        directory = syscalls.openat2(layer, path, os.O_RDONLY | os.O_DIRECTORY, 0, _IN_LAYER)
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        return True
    try:
        return os.getxattr(directory, _OPAQUE) == b"y"
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return False
        raise
    finally:
        os.close(directory)


def _read_merged(root: RootMount, path: str) -> bytes:
    """Where links are followed, which may lead from one layer into another."""
    from runtime_core.container import root_mount  # here: few images need it

    tree = root_mount.mount({"type": root.type, "source": root.source, "lower": root.lower})
    try:
        return _content(paths.open_in_root(tree, path, _READ), path)
    except OSError:
        return b""  # a link that leads nowhere, or in a circle
    finally:
        os.close(tree)


def _content(descriptor: int, path: str) -> bytes:
    try:
        return paths.read_bounded(descriptor, _MOST_BYTES, f"the image's /{path}")
    finally:
        os.close(descriptor)
