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
from runtime_core.container.child_process import run_in_process
from runtime_core.kernel import failpoint, namespaces, syscalls
from runtime_core.monitor.pin import pin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1


def open_namespaces(pod: dict[str, Any], attach: Callable[[int], None]) -> tuple[int, int]:
    """Make what `pod` (PodSpec as JSON) asks for, and enter it.

    (PID of the pod's own PID 1 or 0, descriptor of its user namespace or -1); `attach` moves a process,
    0 for the calling one, into the cgroup of the pod's own processes.
    """
    kinds = [
        kind for kind, wanted in (("network", pod["netns_path"]), ("ipc", pod["own_ipc"]), ("uts", pod["own_uts"])) if wanted
    ]
    if pod["uid_mappings"]:
        first, user = _enter_in_user_namespace(pod, kinds, attach)
    else:
        first, user = 0, -1
        _enter(kinds)
    failpoint.hit("monitor.open.unshared")
    # In a child, which shares all namespaces: what it copies of the launcher's pages goes with it, while in
    # this process, which lives as long as the pod, it would stay.
    run_in_process("furnishing the pod's namespaces", lambda: _configure_namespaces(pod))
    if pod["pid_mode"] == "pod" and not first:
        first = pod_init.fork(lambda: attach(0))
    return first, user


def _configure_namespaces(pod: dict[str, Any]) -> tuple[int, ...]:
    """What is set once in the new namespaces."""
    if pod["netns_path"]:
        pin(pod["netns_path"])
        _loopback_up()
    failpoint.hit("monitor.open.pinned")
    if pod["own_uts"] and pod["hostname"]:
        name = pod["hostname"].encode()
        syscalls.sethostname(name, len(name))
    sysctls.write(pod["sysctls"], as_uid=_root(pod))
    return ()


def _root(pod: dict[str, Any]) -> int:
    """The node's uid for root of the pod."""
    for entry in pod["uid_mappings"]:
        if entry["container_id"] == 0:
            return int(entry["host_id"])
    return 0


def _enter(kinds: list[str]) -> None:
    flags = namespaces.flags_of(kinds)
    if flags:
        syscalls.unshare(flags)


def _enter_in_user_namespace(pod: dict[str, Any], kinds: list[str], attach: Callable[[int], None]) -> tuple[int, int]:
    """The same, in a new user namespace that owns them. This process stays outside of that one, for it
    must keep the host's rights."""
    uids, gids = (
        [(entry["container_id"], entry["host_id"], entry["size"]) for entry in pod[key]]
        for key in ("uid_mappings", "gid_mappings")
    )
    first = 0
    if pod["pid_mode"] == "pod":
        flags = namespaces.flags_of(kinds)
        first = pod_init.fork(clone=lambda own: namespaces.fork_in_user_namespace(own | flags, uids, gids))
        attach(first)  # from outside: the files of cgroups are not its root's
        made = namespaces.open_namespaces(first, ("user", *kinds))
    else:
        made = namespaces.create_in_user_namespace(kinds, uids, gids)
    user = made.pop("user")
    namespaces.join(made)
    for descriptor in made.values():
        os.close(descriptor)
    return first, user


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", _IFF_UP))
