"""What a layer hides of the layers below it, and what it takes over from them, as overlayfs has it on disk.

The rules, and a table of cases: docs/image-layers.md. All of it is decided when every member of the layer is in
its own tree, so the members' order does not matter. Called by the unpack worker in the root of that tree; paths are
relative to it, "" is the root. Cold.

On disk (kernel documentation, filesystems/overlayfs): a 0:0 character device hides a name, the attribute
trusted.overlay.opaque on a directory all that the layers below have in it.
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_OPAQUE = "trusted.overlay.opaque"
_OVERLAY = "trusted.overlay."


class LowerTree:
    """The layers below, as one tree; nothing in it is followed but directories."""

    def __init__(self, directories: Sequence[str]) -> None:
        """`directories`: of the layers, topmost first. They are opened, so that a chroot does not matter, until `close`."""
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        self._layers = [os.open(directory, flags) for directory in directories]
        self._merged: dict[str, list[int]] = {"": self._layers}

    def find(self, path: str) -> os.stat_result | None:
        """What is at `path`; None when nothing is."""
        for layer in self.directories(path.rpartition("/")[0]):
            status = _lstat(path, layer)
            if status is not None:
                return None if _is_whiteout(status) else status
        return None

    def close(self) -> None:
        """Let the layers go."""
        for layer in self._layers:
            os.close(layer)

    def names(self) -> set[str]:
        """What the root holds."""
        found = {name for layer in self._layers for name in _list(layer)}
        return {name for name in found if self.find(name)}

    def directories(self, path: str) -> list[int]:
        """The layers whose directories make up the directory `path`, topmost first; none when it is no directory."""
        unknown = []  # no recursion: a path may have two thousand components
        while path not in self._merged:
            unknown.append(path)
            path = path.rpartition("/")[0]
        found = self._merged[path]
        for below in reversed(unknown):
            found = self._merged[below] = list(self._merging(found, below))
        return found

    def _merging(self, above: list[int], path: str) -> Iterator[int]:
        for layer in above:
            status = _lstat(path, layer)
            if status is None:
                continue
            if not stat.S_ISDIR(status.st_mode):
                return
            yield layer
            if layer != self._layers[-1] and _is_opaque(path, layer):
                return


class Merge:
    """What the members of a layer say about the layers below; `finish` puts it to the layer's own tree."""

    def __init__(self, lower: LowerTree) -> None:
        self._lower = lower
        #: paths that whiteouts name
        self.hidden: set[str] = set()
        #: directories with an opaque whiteout
        self.opaque: set[str] = set()
        #: directories that were made because something lies in them, and that no member describes
        self.implicit: set[str] = set()

    def forget_below(self, path: str) -> None:
        """The directory `path` of the own tree has gone with all that was in it."""
        below = f"{path}/"
        self.implicit = {known for known in self.implicit if known != path and not known.startswith(below)}

    def finish(self) -> int:
        """Make the whiteouts and dress the implicit directories; how many inodes were added."""
        if "" in self.opaque:  # overlayfs does not ask whether the root of a layer is opaque
            self.hidden |= self._lower.names()
        added = sum(self._make_opaque(path) for path in sorted(self.opaque))
        added += sum(self._hide(path) for path in sorted(self.hidden))
        for path in sorted(self.implicit, reverse=True):
            self._inherit(path)
        return added

    def _make_opaque(self, path: str) -> int:
        if not path or not self._has_directory(path):
            return 0
        added = self._make_directory(path)
        if added >= 0:
            os.setxattr(path, _OPAQUE, b"y")
        return max(0, added)

    def _hide(self, path: str) -> int:
        parent = path.rpartition("/")[0]
        if not self._shows(parent) or self._lower.find(path) is None:
            return 0
        status = _lstat(path)
        if status is not None:
            if stat.S_ISDIR(status.st_mode):
                os.setxattr(path, _OPAQUE, b"y")
            return 0
        added = self._make_directory(parent)
        if added < 0:
            return 0
        os.mknod(path, stat.S_IFCHR, 0)
        return added + 1

    def _make_directory(self, path: str) -> int:
        """Have the directory in the own tree; how many were made, -1 when something else is in the way."""
        missing = []
        status = _lstat(path)
        while status is None:
            missing.append(path)
            path = path.rpartition("/")[0]
            status = _lstat(path)
        if not stat.S_ISDIR(status.st_mode):
            return -1
        for directory in reversed(missing):
            os.mkdir(directory, 0o755)
            self.implicit.add(directory)
        return len(missing)

    def _inherit(self, path: str) -> None:
        """Give a directory that no member describes what the layers below say of it."""
        if not self._has_directory(path):
            return
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, dir_fd=self._lower.directories(path)[0])
        try:
            status = os.fstat(descriptor)
            os.chown(path, status.st_uid, status.st_gid)
            for name in os.listxattr(descriptor):
                if not name.startswith(_OVERLAY):
                    os.setxattr(path, name, os.getxattr(descriptor, name))
            os.chmod(path, stat.S_IMODE(status.st_mode))
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        finally:
            os.close(descriptor)

    def _has_directory(self, path: str) -> bool:
        """Whether the layers below have a directory there that this layer does not hide."""
        return path not in self.hidden and self._shows(path.rpartition("/")[0]) and bool(self._lower.directories(path))

    def _shows(self, directory: str) -> bool:
        """Whether what the layers below have in `directory` is to be seen through this layer."""
        while directory:
            if directory in self.hidden or directory in self.opaque:
                return False
            directory = directory.rpartition("/")[0]
        return True


def _lstat(path: str, directory: int | None = None) -> os.stat_result | None:
    try:
        return os.stat(path or ".", dir_fd=directory, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _is_opaque(path: str, layer: int) -> bool:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=layer)
    try:
        return os.getxattr(descriptor, _OPAQUE) == b"y"
    except OSError:
        return False  # without the attribute, or without attributes at all
    finally:
        os.close(descriptor)


def _list(layer: int) -> list[str]:
    descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=layer)
    try:
        return os.listdir(descriptor)
    finally:
        os.close(descriptor)
