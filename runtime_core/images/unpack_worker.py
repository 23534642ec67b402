"""One layer's tar stream to files: a forked process, chrooted into the directory that it fills.

Whatever an archive names, an absolute link, "..", a symlinked parent, resolves within
that directory. Whiteouts become what overlayfs reads (kernel doc filesystems/overlayfs):
a 0:0 character device, and trusted.overlay.opaque on a directory. Cold: standard library only.
"""

from __future__ import annotations

import json
import os
import stat

from runtime_core.errors import DataLoss, InvalidArgument, ResourceExhausted
from runtime_core.images import tar_reader
from runtime_core.kernel import failpoint, paths, syscalls, unforeseen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CHUNK = 1 << 20
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
_DEEPEST = 255
_MOST_SYMLINKS = 16
#: trusted.* steers overlayfs itself and is never an image's to set
_XATTR_PREFIXES = ("user.", "security.capability", "security.ima", "system.posix_acl_")


def main(argument: dict[str, Any], descriptors: list[int]) -> None:
    """The launcher's job: descriptors are the tar stream and where the result goes.

    `argument`: {"directory", "parents": directories of the layers below, topmost first}.
    The result is {"size", "inodes"} or {"kind", "message"}.
    """
    stream, result = descriptors
    syscalls.set_process_name("trivet-unpack")
    try:
        layer = Layer(argument["parents"])
        os.chroot(argument["directory"])
        os.chdir("/")
        os.umask(0)
        report = layer.fill(Stream(stream))
    except Exception as error:  # noqa: BLE001  the edge of a process: the daemon raises it again
        named = unforeseen.named(error, "unpacking a layer")
        report = {"kind": type(named).__name__, "message": str(named)}
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
    def __init__(self, parents: list[str]) -> None:
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        self._parents = [os.open(parent, flags) for parent in parents]
        self._known: dict[str, str] = {"": ""}
        self._directory_times: list[tuple[str, int]] = []
        self._size = self._inodes = 0

    def fill(self, stream: Stream) -> dict[str, Any]:
        for entry in tar_reader.entries(stream.read, stream.skip):
            failpoint.hit("unpack.entry")
            self._place(entry, stream)
        stream.drain()
        for path, mtime in reversed(self._directory_times):
            os.utime(path, ns=(mtime, mtime), follow_symlinks=False)
        return {"size": self._size, "inodes": self._inodes}

    def _place(self, entry: tar_reader.Entry, stream: Stream) -> None:
        parent, name = self._locate(entry.name)
        if not name:
            if entry.kind == tar_reader.DIRECTORY:
                self._dress(".", entry)
            return
        path = f"{parent}/{name}" if parent else name
        if name.startswith(_WHITEOUT):
            self._white_out(parent, name)
            return
        self._make(path, entry, stream)
        self._inodes += 1
        if entry.kind != tar_reader.HARD_LINK:
            self._dress(path, entry)

    def _locate(self, name: str) -> tuple[str, str]:
        """(directory that exists now, last component) of a member's name."""
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise InvalidArgument(f"{name!r}: a layer's paths must not contain '..'")
        if len(parts) > _DEEPEST:
            raise ResourceExhausted(f"{name[:80]!r}…: more than {_DEEPEST} directories deep")
        if not parts:
            return "", ""
        return self._directory("/".join(parts[:-1]), 0), parts[-1]

    def _directory(self, path: str, links: int) -> str:
        """The directory that `path` means, made like the one in the layers below when this layer lacks it."""
        known = self._known.get(path)
        if known is not None:
            return known
        head, _, name = path.rpartition("/")
        parent = self._directory(head, links)
        real = f"{parent}/{name}" if parent else name
        try:
            status = os.lstat(real)
        except FileNotFoundError:
            real = self._inherit(real, parent, links)
        else:
            if stat.S_ISLNK(status.st_mode):
                real = self._follow(real, os.readlink(real), parent, links)
            elif not stat.S_ISDIR(status.st_mode):
                os.unlink(real)
                os.mkdir(real, 0o755)
        self._known[path] = real
        return real

    def _follow(self, path: str, target: str, parent: str, links: int) -> str:
        if links >= _MOST_SYMLINKS:
            raise InvalidArgument(f"{path!r}: too many levels of symbolic links")
        parts: list[str] = [] if target.startswith("/") else [p for p in parent.split("/") if p]
        for part in target.split("/"):
            if part == "..":
                parts = parts[:-1]
            elif part not in ("", "."):
                parts.append(part)
        return self._directory("/".join(parts), links + 1)

    def _inherit(self, path: str, parent: str, links: int) -> str:
        for below in self._parents:
            try:
                descriptor = paths.open_in_root(below, path, os.O_PATH | os.O_NOFOLLOW)
            except OSError as error:
                if paths.is_missing(error):
                    continue
                raise
            try:
                status = os.fstat(descriptor)
                if stat.S_ISLNK(status.st_mode):
                    return self._follow(path, os.readlink("", dir_fd=descriptor), parent, links)
                if stat.S_ISDIR(status.st_mode):
                    os.mkdir(path, 0o755)
                    os.chown(path, status.st_uid, status.st_gid)
                    os.chmod(path, stat.S_IMODE(status.st_mode))
                    return path
                break
            finally:
                os.close(descriptor)
        os.mkdir(path, 0o755)
        return path

    def _white_out(self, parent: str, name: str) -> None:
        if name == _OPAQUE:
            os.setxattr(parent or ".", "trusted.overlay.opaque", b"y")
            return
        target = name[len(_WHITEOUT) :]
        if target in ("", ".", ".."):
            raise DataLoss(f"{name!r} is not a whiteout")
        path = f"{parent}/{target}" if parent else target
        self._clear(path)
        os.mknod(path, stat.S_IFCHR, 0)
        self._inodes += 1

    def _make(self, path: str, entry: tar_reader.Entry, stream: Stream) -> None:
        kind = entry.kind
        if kind == tar_reader.REGULAR:
            self._write_file(path, entry, stream)
        elif kind == tar_reader.DIRECTORY:
            self._make_directory(path, entry)
        elif kind == tar_reader.SYMLINK:
            self._clear(path)
            os.symlink(entry.link, path)
        elif kind == tar_reader.HARD_LINK:
            self._link(path, entry)
        elif kind in (tar_reader.CHARACTER, tar_reader.BLOCK_DEVICE, tar_reader.FIFO):
            self._clear(path)
            format_ = {b"3": stat.S_IFCHR, b"4": stat.S_IFBLK, b"6": stat.S_IFIFO}[kind]
            os.mknod(path, format_ | entry.mode, os.makedev(entry.major, entry.minor))
        else:
            raise DataLoss(f"{entry.name!r}: unknown member type {kind!r}")
        if kind not in (tar_reader.REGULAR, tar_reader.DIRECTORY) and entry.size:
            stream.skip(entry.size)

    def _write_file(self, path: str, entry: tar_reader.Entry, stream: Stream) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(path, flags, 0o600)
        except FileExistsError:
            self._clear(path)
            descriptor = os.open(path, flags, 0o600)
        missing = entry.size
        try:
            while missing:
                data = stream.read(min(missing, _CHUNK))
                if not data:
                    raise DataLoss(f"{entry.name!r}: the archive ends within the file")
                missing -= len(data)
                while data:
                    data = data[os.write(descriptor, data) :]
        finally:
            os.close(descriptor)
        self._size += entry.size

    def _make_directory(self, path: str, entry: tar_reader.Entry) -> None:
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                self._clear(path)
                os.mkdir(path, 0o700)
        self._directory_times.append((path, entry.mtime))

    def _link(self, path: str, entry: tar_reader.Entry) -> None:
        parent, name = self._locate(entry.link)
        source = f"{parent}/{name}" if parent else name
        if source == path:
            return
        self._clear(path)
        try:
            os.link(source, path, follow_symlinks=False)
        except FileNotFoundError:
            raise DataLoss(f"{entry.name!r}: hard link to {entry.link!r}, which is not in this layer") from None

    def _clear(self, path: str) -> None:
        """Remove what an earlier member put at `path`."""
        try:
            os.unlink(path)
        except FileNotFoundError:
            return
        except (IsADirectoryError, PermissionError):
            _remove_tree(path)
            # What was known below it is known no more.
            self._known = {known: real for known, real in self._known.items() if not _is_within(real, path)}
            self._directory_times = [(p, t) for p, t in self._directory_times if not _is_within(p, path)]

    def _dress(self, path: str, entry: tar_reader.Entry) -> None:
        os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
        for name, value in entry.xattrs.items():
            if name.startswith(_XATTR_PREFIXES):
                os.setxattr(path, name, value, follow_symlinks=False)
        if entry.kind != tar_reader.SYMLINK:
            os.chmod(path, entry.mode)
        if entry.kind != tar_reader.DIRECTORY:
            os.utime(path, ns=(entry.mtime, entry.mtime), follow_symlinks=False)


def _is_within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory + "/")


def _remove_tree(path: str) -> None:
    for directory, names, files in os.walk(path, topdown=False):
        for name in files:
            os.unlink(f"{directory}/{name}")
        for name in names:
            entry = f"{directory}/{name}"
            if os.path.islink(entry):
                os.unlink(entry)
            else:
                os.rmdir(entry)
    os.rmdir(path)
