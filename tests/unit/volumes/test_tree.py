"""Trees that somebody hostile filled: copied as they are, deleted without leaving them."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

import pytest

from runtime_core.volumes import tree


def test_a_symlink_leads_nowhere(tmp_path: Path) -> None:
    """What it points to stays; so with the tree's own name."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    victim = tmp_path / "trash" / "victim"
    victim.mkdir(parents=True)
    (victim / "link").symlink_to(outside)
    (victim / "sub").mkdir()
    (victim / "sub" / "up").symlink_to("../../..")
    (tmp_path / "trash" / "linked").symlink_to(outside)
    tree.remove(str(victim))
    tree.remove(str(tmp_path / "trash" / "linked"))
    tree.remove(str(tmp_path / "trash" / "nothing"))
    assert os.listdir(tmp_path / "trash") == []
    assert (outside / "kept").exists()


def test_deeper_than_a_path_can_be_long(tmp_path: Path) -> None:
    """3000 directories of long names: no recursion, no path."""
    home = os.open(".", os.O_RDONLY)
    try:
        os.chdir(tmp_path)
        os.mkdir("deep")
        os.chdir("deep")
        for _depth in range(3000):
            os.mkdir("d" * 50)
            os.chdir("d" * 50)
    finally:
        os.fchdir(home)
        os.close(home)
    tree.remove(str(tmp_path / "deep"))
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="immutable files need root")
def test_what_is_immutable_goes_too(tmp_path: Path) -> None:
    """Files, and directories with what is in them."""
    victim = tmp_path / "trash" / "victim"
    (victim / "dir").mkdir(parents=True)
    (victim / "dir" / "file").touch()
    (victim / "file").touch()
    try:
        for path in ("file", "dir/file", "dir", "."):
            descriptor = os.open(victim / path, os.O_RDONLY)
            fcntl.ioctl(descriptor, 0x40086602, (0x10).to_bytes(8, "little"))  # FS_IOC_SETFLAGS, FS_IMMUTABLE_FL
            os.close(descriptor)
    except OSError as error:
        pytest.skip(f"the file system of the temporary directory has no immutable files: {error}")
    tree.remove(str(victim))
    assert os.listdir(tmp_path / "trash") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="owners and trusted attributes need root")
def test_a_copy_is_the_same(tmp_path: Path) -> None:
    """Owners, modes, times, attributes, hard links, holes, sockets and devices; and the source is not touched."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    (source / "dir").mkdir(mode=0o2751)
    (source / "dir" / "file").write_bytes(b"content")
    os.chmod(source / "dir" / "file", 0o4755)
    os.chown(source / "dir", 12, 34)
    os.link(source / "dir" / "file", source / "hard")
    os.setxattr(source / "hard", "user.note", b"x")
    os.setxattr(source / "dir", "trusted.note", b"y")
    (source / "soft").symlink_to("/nowhere")
    os.chown(source / "soft", 56, 78, follow_symlinks=False)
    os.mkfifo(source / "fifo", 0o600)
    os.mknod(source / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with open(source / "sparse", "wb") as file:
        file.truncate(64 << 20)
        file.seek(32 << 20)
        file.write(b"middle")
    for path in ("dir", "hard", "soft", "."):
        os.utime(source / path, ns=(1_000_000_001, 2_000_000_002), follow_symlinks=False)
    before = facts(source)
    copy(source, target)
    assert facts(target) == before
    assert facts(source) == before
    assert (target / "sparse").stat().st_blocks * 512 < 1 << 20
    assert (target / "hard").samefile(target / "dir" / "file")


def facts(root: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in [root, *sorted(root.rglob("*"))]:
        status = path.lstat()
        attributes = {name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)}
        content = os.readlink(path) if path.is_symlink() else path.read_bytes()[-100:] if path.is_file() else ""
        found[str(path.relative_to(root))] = (
            status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_rdev, attributes, content,
        )  # fmt: skip
    return found


def test_a_fingerprint_sees_every_change(tmp_path: Path) -> None:
    """Written, made, removed, renamed, another mode."""
    (tmp_path / "a").write_text("x")
    (tmp_path / "dir").mkdir()
    seen = set()
    changes = [
        lambda: None,
        lambda: (tmp_path / "a").write_text("y"),
        lambda: (tmp_path / "dir" / "b").touch(),
        lambda: (tmp_path / "dir" / "b").rename(tmp_path / "dir" / "c"),
        lambda: (tmp_path / "a").chmod(0o600),
        lambda: (tmp_path / "dir" / "c").unlink(),
    ]
    for change in changes:
        change()
        descriptor = os.open(tmp_path, os.O_RDONLY)
        seen.add(tree.fingerprint(descriptor))
        assert tree.fingerprint(descriptor) in seen
        os.close(descriptor)
    assert len(seen) == len(changes)


def copy(source: Path, target: Path) -> None:
    descriptors = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (source, target)]
    try:
        tree.copy(*descriptors, deadline=float("inf"))
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
