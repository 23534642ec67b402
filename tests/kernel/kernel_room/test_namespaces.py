"""Namespaces by descriptor."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from runtime_core.errors import TrivetError
from runtime_core.kernel import mounts, namespaces, syscalls
from runtime_core.testing.namespaces import mount_namespace


def test_fork_into_a_pid_namespace_and_back() -> None:
    """The child is there, our later children are here."""
    pid, pidfd = syscalls.clone3(syscalls.CLONE_NEWPID)
    if pid == 0:
        signal.pause()
        os._exit(0)
    child, child_fd = namespaces.fork_into(pidfd, 0)
    if child == 0:
        os._exit(os.getpid())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    assert os.readlink("/proc/self/ns/pid_for_children") == os.readlink("/proc/self/ns/pid")
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(pidfd)
    os.close(child_fd)


def test_fork_into_a_namespace_that_has_ended() -> None:
    """An error, and our children stay here."""
    pid, pidfd = syscalls.clone3(syscalls.CLONE_NEWPID)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    with pytest.raises(ProcessLookupError):
        namespaces.fork_into(pidfd, 0)
    os.close(pidfd)
    assert os.readlink("/proc/self/ns/pid_for_children") == os.readlink("/proc/self/ns/pid")


def test_user_namespace_owns_the_others() -> None:
    """Root of the user namespace may configure the network namespace made with it; no process is left."""
    found = namespaces.create_in_user_namespace(("network", "uts"), [(0, 500_000, 100)], [(0, 600_000, 100)])
    assert found.keys() == {"user", "network", "uts"}
    child = os.fork()
    if child == 0:
        status = 1
        try:
            namespaces.join(found)
            os.setresuid(0, 0, 0)
            syscalls.sethostname(b"inside", 6)
            status = int(os.uname().nodename != "inside")
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert os.uname().nodename != "inside"
    for descriptor in found.values():
        os.close(descriptor)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_malformed_mapping_is_told() -> None:
    """What the kernel refuses is shown; nothing is left."""
    with pytest.raises(TrivetError, match="uid_map.*overlap|uid_map"):
        namespaces.create_in_user_namespace((), [(0, 500_000, 100), (50, 1, 10)], [(0, 1, 1)])


def test_detached_mounts_leave_with_their_descriptor(tmp_path: Path) -> None:
    """A file system that is never attached is gone with its descriptor."""
    with mount_namespace():
        before = set(mounts.current_mount_points())
        tree = mounts.filesystem("tmpfs", ("size=64k",))
        descriptor = os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=tree)
        os.close(descriptor)
        assert set(mounts.current_mount_points()) <= before
        os.close(tree)


def test_unmount_below_takes_everything_and_nothing_else(tmp_path: Path) -> None:
    """Nested and stacked mounts below the prefix go, a sibling with the same beginning stays."""
    for name in ("a", "a/b", "ab"):
        (tmp_path / name).mkdir(exist_ok=True)
        syscalls.mount("tmpfs", str(tmp_path / name), "tmpfs")
        (tmp_path / "a" / "b").mkdir(exist_ok=True)
    syscalls.mount("tmpfs", str(tmp_path / "a"), "tmpfs")
    mounts.unmount_below(str(tmp_path / "a"))
    assert mounts.mounted_below(str(tmp_path)) == [str(tmp_path / "ab")]
    mounts.unmount_below(str(tmp_path))
    mounts.unmount_below(str(tmp_path))


def test_what_a_file_system_says_is_in_the_error() -> None:
    """fsconfig(2) has a log: the reason and the option come back."""
    with pytest.raises(OSError, match="nonsense"):
        mounts.filesystem("tmpfs", ("nonsense=1",))
