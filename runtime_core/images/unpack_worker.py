"""One layer's tar stream to files: a forked process, chrooted into the directory that it fills.

Whatever an archive names, an absolute link or a symlinked parent, resolves within that directory.
What a layer means for those below it is `layer_merge`'s. Cold: standard library only.
"""

from __future__ import annotations

import errno
import json
import os
import stat

from runtime_core.errors import DataLoss, InvalidArgument, ResourceExhausted, TrivetError, from_oserror, name_of_kind
from runtime_core.images import tar_reader
from runtime_core.images.layer_merge import LowerTree, Merge
from runtime_core.kernel import failpoint, syscalls, unexpected_errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    _Enter = Callable[[str, os.stat_result | None], None]

_CHUNK = 1 << 20
_WHITEOUT, _OPAQUE, _AUFS = ".wh.", ".wh..wh..opq", ".wh..wh."
_MOST_SYMLINKS = 16
_MOST_FRAMES = 50
#: trusted.* steers overlayfs itself and is never an image's to set
_XATTR_PREFIXES = ("user.", "security.capability", "security.ima", "system.posix_acl_")
#: what the kernel says about what an archive wants, and not about this node
_OF_THE_INPUT = frozenset((
    errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.ENOENT, errno.EEXIST, errno.EMLINK,
    errno.ERANGE, errno.E2BIG, errno.EFBIG, errno.EILSEQ, errno.ENXIO, errno.EOVERFLOW, errno.ENOTEMPTY,
))  # fmt: skip


def main(argument: dict[str, Any], descriptors: list[int]) -> None:
    """The launcher's job: descriptors are the tar stream and where the result goes.

    `argument`: {"directory", "parents": directories of the layers below, topmost first, "limit": bytes that the files
    may have together}. The result is {"size", "inodes"}, or {"kind", "message"} of an error.
    """
    stream, result = descriptors
    syscalls.set_process_name("trivet-unpack")
    try:
        layer = Layer(LowerTree(argument["parents"]), argument["limit"])
        os.chroot(argument["directory"])
        os.chdir("/")
        os.umask(0)
        report = layer.fill(Stream(stream))
    except Exception as error:  # noqa: BLE001  the edge of a process: the daemon raises it again
        named = unexpected_errors.to_trivet_error(error, "unpacking a layer")
        report = {"kind": name_of_kind(named), "message": str(named)}
    os.write(result, json.dumps(report).encode())


class Stream:
    """A pipe read in large pieces."""

    __slots__ = ("_buffer", "_descriptor", "_position")

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._buffer, self._position = descriptor, b"", 0

    def read(self, size: int) -> bytes:
        """`size` bytes, fewer only at the end."""
        end = self._position + size
        if end <= len(self._buffer):
            data = self._buffer[self._position : end]
            self._position = end
            return data
        pieces = [self._buffer[self._position :]]
        missing = size - len(pieces[0])
        while missing > 0:
            self._buffer = os.read(self._descriptor, _CHUNK)
            self._position = min(missing, len(self._buffer))
            if not self._buffer:
                break
            pieces.append(self._buffer[: self._position])
            missing -= len(pieces[-1])
        return b"".join(pieces)

    def skip(self, size: int) -> None:
        while size > 0:
            size -= len(self.read(min(size, _CHUNK))) or size

    def drain(self) -> None:
        """Take what follows the archive's end, so that its writer can hash all of it."""
        while os.read(self._descriptor, _CHUNK):
            continue


class Layer:
    """The layer's own tree while it is filled: paths are relative to its root, "" is the root itself."""

    def __init__(self, lower: LowerTree, limit: int) -> None:
        self._merge = Merge(lower)
        self._limit = limit
        #: directory as a member names it → as it is without symlinks
        self._known: dict[str, str] = {"": ""}
        self._directory_times: dict[str, int] = {}
        self._size = self._inodes = 0

    def fill(self, stream: Stream) -> dict[str, Any]:
        """Take all of the archive; bytes and inodes of what it holds."""
        for entry in tar_reader.entries(stream.read, stream.skip):
            failpoint.hit("unpack.entry")
            try:
                self._extract(entry)
            except OSError as error:
                raise _named(error, entry) from error
        stream.drain()
        self._inodes += self._merge.finish()
        for path, mtime in self._directory_times.items():
            os.utime(path or ".", ns=(mtime, mtime), follow_symlinks=False)
        return {"size": self._size, "inodes": self._inodes}

    def _extract(self, entry: tar_reader.Entry) -> None:
        parts = _parts(entry.name)
        if _is_aufs(parts):
            return
        if not parts:
            if entry.kind == tar_reader.DIRECTORY:
                self._apply_metadata("", entry)
            return
        *above, name = parts
        if name.startswith(_WHITEOUT):
            self._white_out(self._resolve(above), name)
            return
        path = _join(self._directory("/".join(above)), name)
        self._make(path, entry)
        self._inodes += 1
        if entry.kind != tar_reader.HARD_LINK:
            self._apply_metadata(path, entry)

    # -- names

    def _directory(self, path: str) -> str:
        """The directory that `path` means in the layer's own tree, made when it is missing."""
        known = self._known.get(path)
        if known is None:
            head, _, name = path.rpartition("/")
            if head in self._known:
                known = self._walk(self._known[head], [name], self._enter)
            else:
                known = self._walk("", path.split("/"), self._enter)
            self._known[path] = known
        return known

    def _resolve(self, parts: list[str]) -> str:
        """The same for what need not be there: nothing is made."""
        return self._walk("", parts, lambda _path, _status: None)

    def _walk(self, directory: str, parts: list[str], enter: _Enter) -> str:
        """Follow `parts` from `directory` through the own tree's symlinks alone; `enter(path, status)` sees each
        component that is none, with None for one that is missing."""
        pending, links = parts[::-1], 0
        while pending:
            part = pending.pop()
            if part in ("", "."):
                continue
            if part == "..":
                directory = directory.rpartition("/")[0]
                continue
            path = _join(directory, part)
            status = _lstat(path)
            if status is None or not stat.S_ISLNK(status.st_mode):
                enter(path, status)
                directory = path
                continue
            links += 1
            if links > _MOST_SYMLINKS:
                raise InvalidArgument(f"{path!r}: too many levels of symbolic links")
            target = os.readlink(path)
            directory = "" if target.startswith("/") else directory
            pending += target.split("/")[::-1]
        return directory

    def _enter(self, path: str, status: os.stat_result | None) -> None:
        if status is None or not stat.S_ISDIR(status.st_mode):
            if status is not None:
                self._replace(path)
            os.mkdir(path, 0o755)
            self._merge.implicit.add(path)

    # -- members

    def _white_out(self, parent: str, name: str) -> None:
        if name == _OPAQUE:
            self._merge.opaque.add(parent)
            return
        target = name[len(_WHITEOUT) :]
        if target in ("", ".", ".."):
            raise DataLoss(f"{name!r} is not a whiteout")
        self._merge.hidden.add(_join(parent, target))

    def _make(self, path: str, entry: tar_reader.Entry) -> None:
        kind = entry.kind
        if kind == tar_reader.REGULAR:
            self._write_file(path, entry)
        elif kind == tar_reader.DIRECTORY:
            self._make_directory(path, entry)
        elif kind == tar_reader.SYMLINK:
            self._clear(path)
            os.symlink(entry.link, path)
        elif kind == tar_reader.HARD_LINK:
            self._link(path, entry)
        else:
            self._clear(path)
            format_ = {b"3": stat.S_IFCHR, b"4": stat.S_IFBLK, b"6": stat.S_IFIFO}[kind]
            os.mknod(path, format_ | entry.mode, os.makedev(entry.major, entry.minor))

    def _write_file(self, path: str, entry: tar_reader.Entry) -> None:
        self._size += entry.size
        if self._size > self._limit:  # a sparse file is larger than what the archive has of it
            raise ResourceExhausted(f"{entry.name!r}: unpacked the layer is larger than the limit of {self._limit} bytes")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(path, flags, 0o600)
        except FileExistsError:
            self._clear(path)
            descriptor = os.open(path, flags, 0o600)
        try:
            end = 0
            for offset, length in entry.segments:
                if not length:
                    continue  # GNU tar ends a map with one that says the size
                if offset != end:
                    os.lseek(descriptor, offset, os.SEEK_SET)
                _copy(entry, descriptor, length)
                end = offset + length
            if end != entry.size:
                os.ftruncate(descriptor, entry.size)
        finally:
            os.close(descriptor)

    def _make_directory(self, path: str, entry: tar_reader.Entry) -> None:
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                self._replace(path)
                os.mkdir(path, 0o700)
        self._merge.implicit.discard(path)

    def _link(self, path: str, entry: tar_reader.Entry) -> None:
        *above, name = _parts(entry.link) or [""]
        source = _join(self._resolve(above), name)
        if source == path:
            return
        status = _lstat(source)
        if status is None:
            raise DataLoss(f"{entry.name!r}: hard link to {entry.link!r}, which is not in this layer")
        if stat.S_ISDIR(status.st_mode):
            raise DataLoss(f"{entry.name!r}: hard link to {entry.link!r}, which is a directory")
        self._clear(path)
        os.link(source, path, follow_symlinks=False)

    def _replace(self, path: str) -> None:
        """Make room for a directory where an earlier member put something else, which hid what the layers below have."""
        self._clear(path)
        self._merge.hidden.add(path)

    def _clear(self, path: str) -> None:
        """Remove what an earlier member put at `path`."""
        try:
            os.unlink(path)
        except FileNotFoundError:
            return
        except (IsADirectoryError, PermissionError):
            _remove_tree(path)
            self._merge.forget_below(path)
            self._directory_times = {p: t for p, t in self._directory_times.items() if not _is_within(p, path)}
        self._known = {"": ""}

    def _apply_metadata(self, path: str, entry: tar_reader.Entry) -> None:
        """Owner, extended attributes, mode and time; a directory's time comes at the end."""
        place = path or "."
        os.chown(place, entry.uid, entry.gid, follow_symlinks=False)
        for name, value in entry.xattrs.items():
            if name.startswith(_XATTR_PREFIXES):
                _set_attribute(place, name, value, entry.kind)
        if entry.kind != tar_reader.SYMLINK:
            os.chmod(place, entry.mode)
        if entry.kind != tar_reader.DIRECTORY:
            os.utime(place, ns=(entry.mtime, entry.mtime), follow_symlinks=False)
        else:
            self._directory_times[path] = entry.mtime


def _parts(name: str) -> list[str]:
    """Components of a member's name, with ".." taken back; InvalidArgument for one that leaves the root."""
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            if not parts:
                raise InvalidArgument(f"{name!r}: '..' leads out of the layer")
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    for part in parts[:-1]:
        if part.startswith(_WHITEOUT) and not part.startswith(_AUFS):
            raise InvalidArgument(f"{name!r}: below a whiteout there is nothing")
    return parts


def _is_aufs(parts: list[str]) -> bool:
    """Whether it is aufs's own (".wh..wh.plnk", ".wh..wh.orph"): no part of the file system."""
    return any(part.startswith(_AUFS) for part in parts) and parts[-1] != _OPAQUE


def _copy(entry: tar_reader.Entry, descriptor: int, length: int) -> None:
    while length:
        data = entry.read(min(length, _CHUNK))
        length -= len(data)
        while data:
            data = data[os.write(descriptor, data) :]


def _set_attribute(path: str, name: str, value: bytes, kind: bytes) -> None:
    if name.startswith("user.") and kind not in (tar_reader.REGULAR, tar_reader.DIRECTORY):
        return  # xattr(7): nothing else can have one
    try:
        os.setxattr(path, name, value, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.ENOTSUP:  # what this file system does not have no reader puts there
            raise


def _named(error: OSError, entry: tar_reader.Entry) -> TrivetError:
    """DataLoss for what the archive wants and no file system gives, else what the node lacks; with the member's name."""
    if error.errno in _OF_THE_INPUT:
        return DataLoss(f"{entry.name[:256]!r}: {error.strerror}")
    return from_oserror(error, f"{entry.name[:256]!r}")


def _join(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory else name


def _lstat(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path or ".")
    except (FileNotFoundError, NotADirectoryError):
        return None


def _is_within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory + "/")


def _remove_tree(path: str) -> None:
    pending, directories = [path], []
    while pending:
        directories.append(pending.pop())
        with os.scandir(directories[-1]) as found:
            for item in found:
                if item.is_dir(follow_symlinks=False):
                    pending.append(item.path)
                else:
                    os.unlink(item.path)
    for directory in reversed(directories):
        os.rmdir(directory)
