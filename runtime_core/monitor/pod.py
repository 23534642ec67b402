"""The pod's namespaces: made by the monitor in itself, pinned by its life.

The network namespace also gets a name in the file system, for CNI plugins and for DEL
after the monitor has died.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct

from runtime_core.container import pod_init, sysctls
from runtime_core.kernel import failpoint, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1


def open_namespaces(pod: dict[str, Any], join_cgroup: Callable[[], None]) -> int:
    """Make what `pod` (PodSpec as JSON) asks for; PID of the pod's own PID 1, which calls
    `join_cgroup` in itself, or 0."""
    flags = 0
    if pod["netns_path"]:
        flags |= syscalls.CLONE_NEWNET
    if pod["own_ipc"]:
        flags |= syscalls.CLONE_NEWIPC
    if pod["own_uts"]:
        flags |= syscalls.CLONE_NEWUTS
    if flags:
        syscalls.unshare(flags)
    failpoint.hit("monitor.open.unshared")
    if pod["netns_path"]:
        pin(pod["netns_path"])
        _loopback_up()
    failpoint.hit("monitor.open.pinned")
    if pod["own_uts"] and pod["hostname"]:
        name = pod["hostname"].encode()
        syscalls.sethostname(name, len(name))
    sysctls.write(pod["sysctls"])
    if pod["pid_mode"] != "pod":
        return 0
    scratch = pod["directory"] + "/rootfs"
    return pod_init.fork(scratch, join_cgroup)


def pin(path: str) -> None:
    """Bind this process's network namespace to the file `path`, which outlives the process."""
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o444))
    syscalls.mount("/proc/self/ns/net", path, "", syscalls.MS_BIND)


def unpin(path: str) -> None:
    """Undo `pin`. Idempotent."""
    try:
        syscalls.umount2(path, syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)
    except OSError as error:
        if error.errno not in (2, 22):  # ENOENT, EINVAL: not there, not mounted
            raise
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", _IFF_UP))
