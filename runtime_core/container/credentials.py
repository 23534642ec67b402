"""Who the program is: user, groups, capabilities, no_new_privs, seccomp, limits. Applied last, in order."""

from __future__ import annotations

import os
import resource

from runtime_core.container import lsm
from runtime_core.errors import InvalidArgument, PermissionDenied
from runtime_core.kernel import capabilities, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_HIGHEST_ID = 2**31 - 1


class Credentials:
    """An OCI `process` read once before the namespaces are entered, so that nothing fails half-way."""

    __slots__ = ("_label", "ambient", "apparmor", "bounding", "effective", "gid", "groups", "no_new_privileges", "oom_score_adj",
                 "permitted", "rlimits", "seccomp", "uid", "umask")  # fmt: skip

    def __init__(self, process: dict[str, Any], seccomp: bytes) -> None:
        user = process.get("user") or {}
        self.uid = _identity(user.get("uid", 0), "process.user.uid")
        self.gid = _identity(user.get("gid", 0), "process.user.gid")
        self.groups = [_identity(g, "process.user.additionalGids") for g in user.get("additionalGids") or ()]
        self.umask = user.get("umask", 0o022)
        sets = process.get("capabilities") or {}
        self.bounding = capabilities.mask(sets.get("bounding") or [], "process.capabilities.bounding")
        self.effective = capabilities.mask(sets.get("effective") or [], "process.capabilities.effective")
        self.permitted = capabilities.mask(sets.get("permitted") or [], "process.capabilities.permitted")
        self.ambient = capabilities.mask(sets.get("ambient") or [], "process.capabilities.ambient")
        self.no_new_privileges = bool(process.get("noNewPrivileges"))
        self.oom_score_adj = process.get("oomScoreAdj")
        self.rlimits = [_rlimit(limit) for limit in process.get("rlimits") or ()]
        self.seccomp = seccomp
        self.apparmor: str = process.get("apparmorProfile") or ""
        self._label = -1

    def open_label(self) -> None:
        """While the host's /proc is there, by the process that will exec."""
        self._label = lsm.open_label(self.apparmor)

    def check_privileges(self) -> None:
        """Raise when this process, in its user namespace already, cannot hand on what is asked for."""
        _effective, held, _inheritable = syscalls.capget()
        lacking = (self.bounding | self.effective | self.permitted | self.ambient) & ~held
        if lacking:
            raise PermissionDenied(f"process.capabilities: this machine cannot give {', '.join(capabilities.names(lacking))}")
        if self.ambient & ~self.permitted or self.effective & ~self.permitted:
            raise InvalidArgument("process.capabilities: effective and ambient must be within permitted")

    def set_user(self) -> None:
        """Limits, groups and ids. The capabilities stay until `set_privileges`."""
        for kind, soft, hard, name in self.rlimits:
            try:
                resource.setrlimit(kind, (soft, hard))
            except (OSError, ValueError) as error:
                raise PermissionDenied(f"process.rlimits: {name} cannot be set to {soft}:{hard}: {error}") from error
        os.umask(self.umask)
        capabilities.limit_bounding(self.bounding)
        syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 1)
        os.setgroups(self.groups)
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)
        syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 0)

    def set_privileges(self) -> None:
        """Capabilities, no_new_privs and the seccomp filter; only exec may follow.

        Without no_new_privs the filter needs CAP_SYS_ADMIN, so it is loaded before that goes, and
        must allow capset and prctl (seccomp(2)).
        """
        lsm.set_label(self._label, self.apparmor)
        if self.seccomp and not self.no_new_privileges:
            _effective, permitted, _inheritable = syscalls.capget()
            syscalls.capset(permitted, permitted, 0)  # setresuid has emptied the effective set
            syscalls.seccomp_set_filter(self.seccomp)
        capabilities.apply(self.effective, self.permitted, self.ambient)
        if self.no_new_privileges:
            syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
            if self.seccomp:
                syscalls.seccomp_set_filter(self.seccomp)


def adjust_oom_score(wanted: int) -> None:
    """Write oom_score_adj; a value below ours needs CAP_SYS_RESOURCE, and without it ours stays (proc(5))."""
    try:
        _write_oom_score(wanted)
    except PermissionError:
        with open("/proc/self/oom_score_adj") as file:
            _write_oom_score(max(wanted, int(file.read())))


def _write_oom_score(value: int) -> None:
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write(str(value))


def _identity(value: int, field: str) -> int:
    if type(value) is not int or not 0 <= value <= _HIGHEST_ID:
        raise InvalidArgument(f"{field}: {value!r} is not within 0..{_HIGHEST_ID}")
    return value


def _rlimit(limit: dict[str, Any]) -> tuple[int, int, int, str]:
    name = limit["type"]
    kind = getattr(resource, name, None) if name.startswith("RLIMIT_") else None
    if kind is None:
        raise InvalidArgument(f"process.rlimits: unknown limit {name!r}")
    soft, hard = (-1 if value >= 2**63 else value for value in (limit["soft"], limit["hard"]))
    return kind, soft, hard, name
