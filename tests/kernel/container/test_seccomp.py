"""Seccomp filters as a container's program meets them."""

from __future__ import annotations

import ctypes
import os

import pytest

from cri.translate.security import DEFAULT_CAPABILITIES, default_profile
from runtime_core.kernel import seccomp, syscalls

from .conftest import Box


@pytest.mark.parametrize("no_new_privileges", [True, False])
@pytest.mark.parametrize("uid", [0, 1000])
def test_filter_is_in_force(box: Box, no_new_privileges: bool, uid: int) -> None:
    """A denied call fails with the errno of the profile, with and without no_new_privs, for any user."""
    box.process["noNewPrivileges"] = no_new_privileges
    box.process["user"] = {"uid": uid, "gid": 0}
    box.process["capabilities"] = {name: [] for name in ("bounding", "effective", "permitted")}
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}
    box.seccomp = seccomp.compile_profile({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
    finished = box.shell("mkdir /dev/shm/x; grep ^Seccomp: /proc/self/status")
    assert "Operation not supported" in finished.stderr
    assert finished.lines == ["Seccomp:\t2"]


def test_exec_has_the_filter_too(box: Box) -> None:
    """No way around by exec."""
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}
    box.seccomp = seccomp.compile_profile({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
    init = box.background()
    assert "Operation not supported" in box.execute(init, "/bin/mkdir", "/x").stderr


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_runtime_default_lets_programs_run(box: Box, no_new_privileges: bool) -> None:
    """The default profile, default deny, allows what a shell does, and the calls of our last steps."""
    box.process["noNewPrivileges"] = no_new_privileges
    box.process["user"] = {"uid": 1000, "gid": 1000}
    box.seccomp = seccomp.compile_profile(default_profile(DEFAULT_CAPABILITIES))
    finished = box.shell("echo hello | cat; ls / > /dev/null && echo listed; mount -t tmpfs x /tmp")
    assert finished.lines == ["hello", "listed"]
    assert finished.stderr


def test_unknown_call_is_not_there(box: Box) -> None:
    """A call newer than a deny-by-default profile is ENOSYS, so that libraries fall back; an older one EPERM."""
    calls = [
        "read",
        "write",
        "exit_group",
        "exit",
        "rt_sigreturn",
        "rt_sigaction",
        "futex",
        "munmap",
        "mmap",
        "brk",
        "close",
    ]
    program = seccomp.compile_profile(
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{"names": [*calls, "openat2"], "action": "SCMP_ACT_ALLOW"}],
        }
    )
    libc = ctypes.CDLL(None, use_errno=True)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        syscalls.seccomp_set_filter(program)
        found = []
        for number in (452, 83):  # fchmodat2, mkdir
            libc.syscall(number, 0, 0, 0)
            found.append(ctypes.get_errno())
        os.write(writer, bytes(found))
        os._exit(0)
    os.waitpid(child, 0)
    assert list(os.read(reader, 10)) == [38, 1]
    os.close(reader)
    os.close(writer)
