"""The OCI `features` document (runtime-spec, features.md): what this runtime can do. Pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

#: versions of the runtime specification
OLDEST, NEWEST = "1.0.0", "1.2.0"
_NAMESPACES = ("cgroup", "ipc", "mount", "network", "pid", "user", "uts")
_ACTIONS = ("ALLOW", "ERRNO", "KILL", "KILL_PROCESS", "KILL_THREAD", "LOG", "TRACE", "TRAP")
_OPERATORS = ("EQ", "GE", "GT", "LE", "LT", "MASKED_EQ", "NE")
_ARCHITECTURES = ("AARCH64", "ARM", "RISCV64", "X32", "X86", "X86_64")


def document(
    *,
    mount_options: Sequence[str],
    capabilities: Sequence[str],
    cgroup_versions: Sequence[int],
    has_apparmor: bool,
) -> dict[str, Any]:
    """`capabilities` are those that the machine can give, `cgroup_versions` those with a driver."""
    return {
        "ociVersionMin": OLDEST,
        "ociVersionMax": NEWEST,
        "hooks": [],
        "mountOptions": list(mount_options),
        "linux": {
            "namespaces": list(_NAMESPACES),
            "capabilities": list(capabilities),
            "cgroup": {
                "v1": 1 in cgroup_versions,
                "v2": 2 in cgroup_versions,
                "systemd": False,
                "systemdUser": False,
                "rdma": False,
            },
            "seccomp": {
                "enabled": True,
                "actions": [f"SCMP_ACT_{name}" for name in _ACTIONS],
                "operators": [f"SCMP_CMP_{name}" for name in _OPERATORS],
                "archs": [f"SCMP_ARCH_{name}" for name in _ARCHITECTURES],
                "knownFlags": [],
                "supportedFlags": [],
            },
            "apparmor": {"enabled": has_apparmor},
            "selinux": {"enabled": False},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": True}},
        },
    }
