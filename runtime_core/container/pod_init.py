"""PID 1 of a pod whose containers share a PID namespace: it reaps, and nothing else.

It stands in a file tree of its own that is empty, without any capability, so that a
container that looks at /proc/1 finds nothing of the host.
"""

from __future__ import annotations

import os
import signal

from runtime_core.kernel import mounts, syscalls

_NAMESPACES = syscalls.CLONE_NEWPID | syscalls.CLONE_NEWNS


def fork(scratch: str) -> int:
    """PID of the new process; `scratch` is an empty directory to mount its root on."""
    pid, pidfd = syscalls.clone3(_NAMESPACES)
    if pid:
        os.close(pidfd)
        return pid
    try:
        _become_nobody(scratch)
        _reap()
    finally:
        os._exit(1)


def _become_nobody(scratch: str) -> None:
    syscalls.set_process_name("trivet-pause")
    os.setsid()
    syscalls.mount("", "/", "", syscalls.MS_SLAVE | syscalls.MS_REC)
    target = os.open(scratch, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
    mounts.attach(mounts.filesystem("tmpfs", ("size=4k",), syscalls.MOUNT_ATTR_RDONLY), target)
    os.chdir(scratch)
    syscalls.close_all_except(set())
    syscalls.pivot_root(".", ".")
    syscalls.umount2(".", syscalls.MNT_DETACH)
    os.chdir("/")
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    syscalls.capset(0, 0, 0)


def _reap() -> None:
    signal.set_wakeup_fd(-1)
    awaited = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    while True:
        signal.sigwait(awaited)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                continue
        except ChildProcessError:
            continue
