"""Sysctls that a namespace has for itself: which they are, and writing them where nobody can redirect it."""

from __future__ import annotations

import os

from runtime_core.errors import InvalidArgument
from runtime_core.kernel import mounts, syscalls

_IPC = frozenset((
    "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
    "kernel.shmmni", "kernel.shm_rmid_forced",
))  # fmt: skip
_IN_PROCFS = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_XDEV


def namespace_of(key: str) -> str:
    """The OCI namespace type that `key` belongs to; InvalidArgument for one of the whole machine.

    Both spellings of sysctl(8) are known: kernel.sem and kernel/sem.
    """
    if any(part in ("", "..", ".") for part in _path(key).split("/")):
        raise InvalidArgument(f"sysctl {key!r} is not a name")
    dotted = _path(key).replace("/", ".")
    if dotted in _IPC or dotted.startswith("fs.mqueue."):
        return "ipc"
    if dotted.startswith("net."):
        return "network"
    if dotted == "kernel.domainname":
        return "uts"
    raise InvalidArgument(f"sysctl {key!r} is not namespaced, so it cannot be set for a container")


def write(values: dict[str, str], *, as_uid: int = 0) -> None:
    """Write to a private procfs, so that neither a mount nor a symlink leads elsewhere (CVE-2025-52881).

    The caller is in the namespaces that it means to change. `as_uid`: who is root in the user namespace
    that owns them: for those of IPC the kernel asks for that id, not for a capability (ipc/ipc_sysctl.c).
    """
    if not values:
        return
    for key, value in values.items():
        namespace_of(key)
        if "\n" in value or "\0" in value:
            raise InvalidArgument(f"sysctl {key}: {value!r} has control characters")
    procfs = mounts.filesystem("proc")
    try:
        for key, value in values.items():
            os.seteuid(as_uid if namespace_of(key) == "ipc" else 0)
            _write(procfs, key, value)
    finally:
        os.seteuid(0)
        os.close(procfs)


def _write(procfs: int, key: str, value: str) -> None:
    try:
        descriptor = syscalls.openat2(procfs, "sys/" + _path(key), os.O_WRONLY, 0, _IN_PROCFS)
    except OSError as error:
        raise InvalidArgument(f"sysctl {key}: cannot be opened: {error.strerror}") from error
    try:
        os.write(descriptor, value.encode())
    except OSError as error:
        raise InvalidArgument(f"sysctl {key}: cannot be set to {value!r}: {error.strerror}") from error
    finally:
        os.close(descriptor)


def _path(key: str) -> str:
    """As sysctl(8) reads it: the first separator says which of the two is one."""
    first = next((character for character in key if character in "./"), ".")
    return key if first == "/" else key.translate({ord("."): "/", ord("/"): "."})
