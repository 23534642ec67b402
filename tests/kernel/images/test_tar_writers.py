"""Archives of real writers in their formats: what is unpacked is what the writer's own reader makes of it."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from runtime_core.images.unpack import unpack
from runtime_core.launcher.client import Launcher
from runtime_core.testing.tools import require_program

_LIMIT = 1 << 32
_LONG = "/".join(["long-" + "n" * 90] * 3)
_SPARSE = 40 << 20
_GNU = {
    "incremental": ["--format=gnu", "--listed-incremental=../snapshot"],
    "v7": ["--format=v7"], "oldgnu": ["--format=oldgnu"], "gnu": ["--format=gnu"], "ustar": ["--format=ustar"],
    "posix": ["--format=posix", "--xattrs"], "posix, acls": ["--format=posix", "--xattrs", "--acls"],
    "labelled": ["--format=gnu", "--label=x"],
    "sparse oldgnu": ["--format=oldgnu", "--sparse"], "sparse gnu": ["--format=gnu", "--sparse"],
    "sparse 0.0": ["--format=posix", "--sparse-version=0.0"], "sparse 0.1": ["--format=posix", "--sparse-version=0.1"],
    "sparse 1.0": ["--format=posix", "--sparse-version=1.0"],
}  # fmt: skip
#: v7 has neither long names nor devices, ustar no path of more than 256 bytes
_SHORT = ("v7", "ustar")


def _source(directory: Path, *, short: bool) -> Path:
    source = directory / "source"
    (source / "d" / "empty").mkdir(parents=True)
    (source / "d" / "f").write_bytes(b"text" * 1000)
    (source / "zero").touch()
    (source / "d" / "link").symlink_to("../zero")
    os.link(source / "d" / "f", source / "hard")
    if not short:
        os.mkfifo(source / "fifo", 0o640)
        (source / _LONG).mkdir(parents=True)
        (source / _LONG / ("f" * 150)).write_text("deep")
        (source / "longlink").symlink_to("t" * 300)
        os.mknod(source / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(source / "disk", stat.S_IFBLK | 0o600, os.makedev(254, 300))
        Path(os.fsdecode(os.fsencode(source) + b"/\xff\xfe")).write_text("no UTF-8")
        (source / "ünïcödé").write_text("UTF-8")
        os.chown(source / "zero", 300_000_000, 2_097_152)
    with (source / "sparse").open("wb") as file:
        for offset in range(0, _SPARSE, _SPARSE // 40):
            file.seek(offset)
            file.write(b"data %d" % offset)
        file.truncate(_SPARSE + 12345)
    with (source / "hole").open("wb") as file:
        file.truncate(1 << 20)
    os.chmod(source / "d", 0o2755)
    os.chmod(source / "zero", 0o4711)
    os.utime(source / "zero", ns=(1_600_000_000_123_456_789,) * 2)
    return source


def _attributes(source: Path) -> None:
    os.setxattr(source / "d" / "f", "user.text", b"a=b\n\0c")
    os.setxattr(source / "d", "user.directory", b"x")
    os.setxattr(source / "zero", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))


def _described(root: Path) -> dict[str, Any]:
    """Everything that a tar can say of a tree; inodes by the first name that they have."""
    found: dict[str, Any] = {}
    inodes: dict[int, str] = {}
    for directory, names, files in os.walk(root):
        for name in sorted(names + files):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            shown = os.path.relpath(path, root)
            entry: list[Any] = [oct(status.st_mode), status.st_uid, status.st_gid, status.st_rdev, status.st_mtime_ns]
            if stat.S_ISREG(status.st_mode):
                entry += [status.st_size, hashlib.sha256(Path(path).read_bytes()).hexdigest()]
                entry.append(inodes.setdefault(status.st_ino, shown) if status.st_nlink > 1 else "")
            if stat.S_ISLNK(status.st_mode):
                entry.append(os.readlink(path))
            else:
                entry.append({name: os.getxattr(path, name) for name in os.listxattr(path)})
            found[shown] = entry
    return found


def _unpack(archive: Path, directory: Path, launcher: Launcher) -> Path:
    target = directory / "ours"
    target.mkdir()
    diff_id = f"sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}"
    unpack(archive, diff_id, str(target), [], launcher, limit=_LIMIT)
    return target


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@pytest.mark.parametrize("form", _GNU)
def test_gnu_tar(form: str, tmp_path: Path, launcher: Launcher) -> None:
    """Each of its formats, sparse files in each of theirs."""
    source = _source(tmp_path, short=form in _SHORT)
    has_attributes = "--xattrs" in _GNU[form]
    if has_attributes:
        _attributes(source)
    archive, theirs = tmp_path / "a.tar", tmp_path / "theirs"
    theirs.mkdir()
    _run(
        "tar", "-C", str(source), *_GNU[form], "--xattrs-include=*" if has_attributes else "--no-xattrs", "-cf", str(archive), "."
    )
    _run("tar", "-C", str(theirs), "--xattrs", "--xattrs-include=*", "--same-owner", "-xpf", str(archive))
    ours = _unpack(archive, tmp_path, launcher)
    assert _described(ours) == _described(theirs)
    if "sparse" in form:
        assert (ours / "sparse").stat().st_blocks * 512 < _SPARSE // 2


@pytest.mark.parametrize("form", ["pax", "paxr", "ustar", "gnutar", "v7"])
def test_bsdtar(form: str, tmp_path: Path, launcher: Launcher) -> None:
    """Each of its formats of tar."""
    require_program("bsdtar", "libarchive-tools")
    source = _source(tmp_path, short=form in _SHORT)
    if form == "pax":
        _attributes(source)
    archive, theirs = tmp_path / "a.tar", tmp_path / "theirs"
    theirs.mkdir()
    made = subprocess.run(["bsdtar", "-C", str(source), f"--format={form}", "-cf", str(archive), "."], capture_output=True)
    assert made.returncode <= 1, made.stderr  # 1: a name that is not UTF-8 stays as it is
    _run("bsdtar", "-C", str(theirs), "--same-owner", "-xpf", str(archive))
    assert _described(_unpack(archive, tmp_path, launcher)) == _described(theirs)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_python(form: int, tmp_path: Path, launcher: Launcher) -> None:
    """The standard library's three formats."""
    source = _source(tmp_path, short=form == tarfile.USTAR_FORMAT)
    archive, theirs = tmp_path / "a.tar", tmp_path / "theirs"
    with tarfile.open(archive, "w", format=form) as written:
        written.add(source, ".")
    with tarfile.open(archive) as read:
        read.extractall(theirs, numeric_owner=True, filter="fully_trusted")
    ours, others = _described(_unpack(archive, tmp_path, launcher)), _described(theirs)
    for name, entry in others.items():  # its reader has times as floats, and none for symbolic links
        entry[4] = ours[name][4] if entry[0].startswith("0o12") or abs(ours[name][4] - entry[4]) < 1000 else entry[4]
    assert ours == others


def test_deep_paths(tmp_path: Path, launcher: Launcher) -> None:
    """As long as the kernel takes one."""
    name = "/".join(["d"] * 2000)
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as written:
        written.addfile(tarfile.TarInfo(name))
    try:
        ours = os.open(_unpack(archive, tmp_path, launcher), os.O_PATH)
        assert stat.S_ISREG(os.stat(name, dir_fd=ours).st_mode)
        os.close(ours)
    finally:
        _run("rm", "-rf", str(tmp_path / "ours"))  # pytest cannot
