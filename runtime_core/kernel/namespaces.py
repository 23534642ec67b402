"""Namespaces by descriptor: made, opened, entered, and forked into (namespaces(7)). Cold."""

from __future__ import annotations

import os

from runtime_core.errors import FailedPrecondition, TrivetError
from runtime_core.kernel import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: OCI type → clone flag
FLAGS = {
    "user": syscalls.CLONE_NEWUSER,
    "network": syscalls.CLONE_NEWNET,
    "ipc": syscalls.CLONE_NEWIPC,
    "uts": syscalls.CLONE_NEWUTS,
    "cgroup": syscalls.CLONE_NEWCGROUP,
    "pid": syscalls.CLONE_NEWPID,
    "mount": syscalls.CLONE_NEWNS,
}
#: OCI type → file below /proc/PID/ns, where they differ
_FILES = {"network": "net", "mount": "mnt"}


def file_name(kind: str) -> str:
    """Name below /proc/PID/ns of the OCI namespace type `kind`."""
    return _FILES.get(kind, kind)


def flags_of(kinds: Iterable[str]) -> int:
    """The clone flags of some OCI types together."""
    flags = 0
    for kind in kinds:
        flags |= FLAGS[kind]
    return flags


def is_own(descriptor: int, kind: str) -> bool:
    """Whether this process is in that namespace already."""
    other, own = os.fstat(descriptor), os.stat(f"/proc/self/ns/{file_name(kind)}")
    return (other.st_dev, other.st_ino) == (own.st_dev, own.st_ino)


def fork_into(pid_namespace: int, flags: int) -> tuple[int, int]:
    """clone3 of a child that belongs to another PID namespace; (pid, pidfd), (0, -1) in the child.

    `pid_namespace` is an nsfs descriptor or a pidfd. setns(2) moves only the children of this
    process, so that it can turn back, which spares the usual middle process.
    """
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.setns(pid_namespace, syscalls.CLONE_NEWPID)
        try:
            pid, pidfd = syscalls.clone3(flags)
        except OSError:
            syscalls.setns(own, syscalls.CLONE_NEWPID)
            raise
        if pid:  # the child may not turn back, and need not
            syscalls.setns(own, syscalls.CLONE_NEWPID)
    finally:
        os.close(own)
    return pid, pidfd


def fork_in_user_namespace(
    flags: int, uid_mappings: Iterable[tuple[int, int, int]], gid_mappings: Iterable[tuple[int, int, int]]
) -> tuple[int, int]:
    """clone3 of a child in a new user namespace, which owns those of `flags`; (pid, pidfd), (0, -1) in the child.

    The child returns when it is root there. A mapping is (container id, host id, size).
    """
    go_reader, go_writer = os.pipe2(os.O_CLOEXEC)
    # The kernel makes the user namespace of one clone first, and it owns the others.
    pid, pidfd = syscalls.clone3(syscalls.CLONE_NEWUSER | flags)
    if pid == 0:
        os.close(go_writer)
        if not os.read(go_reader, 1):
            os._exit(1)  # the parent has died, or the kernel refuses the mapping
        os.close(go_reader)
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        return 0, -1
    try:
        _write_map(pid, "uid_map", uid_mappings)
        _write_map(pid, "gid_map", gid_mappings)
        os.write(go_writer, b"x")
    except BaseException:
        os.close(go_writer)
        go_writer = -1
        os.close(pidfd)
        os.waitpid(pid, 0)
        raise
    finally:
        os.close(go_reader)
        if go_writer >= 0:
            os.close(go_writer)
    return pid, pidfd


def create_in_user_namespace(
    kinds: Iterable[str],
    uid_mappings: Iterable[tuple[int, int, int]],
    gid_mappings: Iterable[tuple[int, int, int]],
) -> dict[str, int]:
    """A new user namespace and, owned by it, the namespaces `kinds` ("network", "ipc", "uts").

    OCI type → descriptor; the key "user" is among them.
    """
    pid = 0
    exit_reader, exit_writer = os.pipe2(os.O_CLOEXEC)
    try:
        pid, pidfd = fork_in_user_namespace(flags_of(kinds), uid_mappings, gid_mappings)
        if pid == 0:
            os.close(exit_writer)
            os.read(exit_reader, 1)  # end of file: the parent is done, or dead
            os._exit(0)
        os.close(pidfd)
        return open_namespaces(pid, ("user", *kinds))
    finally:
        os.close(exit_reader)
        os.close(exit_writer)
        if pid:
            os.waitpid(pid, 0)


def open_namespaces(pid: int, kinds: Iterable[str]) -> dict[str, int]:
    """Descriptors of a process's namespaces, by OCI type; all of them, or none and the OSError."""
    found: dict[str, int] = {}
    try:
        for kind in kinds:
            found[kind] = os.open(f"/proc/{pid}/ns/{file_name(kind)}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        for descriptor in found.values():
            os.close(descriptor)
        raise
    return found


def _write_map(pid: int, file: str, mappings: Iterable[tuple[int, int, int]]) -> None:
    text = "".join(f"{inside} {outside} {size}\n" for inside, outside, size in mappings)
    descriptor = os.open(f"/proc/{pid}/{file}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    except OSError as error:
        raise TrivetError(f"{file}: the kernel refuses {text!r}: {error.strerror}") from error
    finally:
        os.close(descriptor)


def join(namespaces: Mapping[str, int]) -> None:
    """Enter each, in the order of FLAGS reversed: a user namespace last, since it takes privileges away."""
    for kind in reversed(FLAGS):
        descriptor = namespaces.get(kind, -1)
        if descriptor >= 0:
            try:
                syscalls.setns(descriptor, FLAGS[kind])
            except ProcessLookupError:
                raise FailedPrecondition(f"the process whose {kind} namespace was to be joined has ended") from None
