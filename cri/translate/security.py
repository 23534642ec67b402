"""Capabilities and seccomp of a container. Pure but for the profile that it reads from the package."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from cri.api.v1 import api_pb2 as api
from runtime_core.errors import InvalidArgument
from runtime_core.kernel import capabilities

#: what a container has when nothing is said
DEFAULT_CAPABILITIES = tuple(
    "CAP_" + name
    for name in (
        "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
        "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
    )
)  # fmt: skip
_ARCHITECTURES = {
    "x86_64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    "aarch64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
    "riscv64": ["SCMP_ARCH_RISCV64"],
}


def capability_sets(security: api.LinuxContainerSecurityContext, machine: Sequence[str], uid: int) -> dict[str, list[str]]:
    """OCI process.capabilities. "ALL" and privileged mean those that the machine can give."""
    if security.privileged:
        kept = list(machine)
    else:
        kept = _adjusted(security.capabilities, machine)
    ambient = [_known(name, "add_ambient_capabilities") for name in security.capabilities.add_ambient_capabilities]
    kept += [name for name in ambient if name not in kept]
    held = kept if uid == 0 else ambient
    return {"bounding": kept, "effective": held, "permitted": held, "inheritable": ambient, "ambient": ambient}


def _adjusted(wanted: api.Capability, machine: Sequence[str]) -> list[str]:
    add = [_known(name, "add_capabilities") for name in wanted.add_capabilities]
    drop = [_known(name, "drop_capabilities") for name in wanted.drop_capabilities]
    kept = [name for name in DEFAULT_CAPABILITIES if name in machine]
    if "ALL" in add:
        kept = list(machine)
    if "ALL" in drop:
        kept = []
    for name in add:
        if name != "ALL" and name not in kept:
            if name not in machine:
                raise InvalidArgument(f"config.linux.security_context.capabilities: this machine cannot give {name}")
            kept.append(name)
    return [name for name in kept if name not in drop]


def _known(name: str, field: str) -> str:
    upper = name.upper()
    if upper == "ALL":
        return upper
    full = upper if upper.startswith("CAP_") else f"CAP_{upper}"
    capabilities.mask([full], f"config.linux.security_context.capabilities.{field}")
    return full


def seccomp_kind(security: api.LinuxContainerSecurityContext) -> tuple[str, str]:
    """("default" | "localhost" | "unconfined", path of the localhost profile)."""
    if security.privileged:
        return "unconfined", ""
    profile = security.seccomp
    field = "config.linux.security_context.seccomp"
    if security.HasField("seccomp"):
        if profile.profile_type == api.SecurityProfile.RuntimeDefault:
            return "default", ""
        if profile.profile_type == api.SecurityProfile.Unconfined:
            return "unconfined", ""
        if not profile.localhost_ref.startswith("/") or ".." in profile.localhost_ref.split("/"):
            raise InvalidArgument(f"{field}.localhost_ref: {profile.localhost_ref!r} is not an absolute path")
        return "localhost", profile.localhost_ref
    return "unconfined", ""


def default_profile(held: Sequence[str]) -> dict[str, Any]:
    """RuntimeDefault: an allow-list, and more of it for who holds the capability that a call asks for anyway."""
    document = _document()
    allowed = list(document["always"])
    for name, calls in document["with_capability"].items():
        if name in held:
            allowed += calls
    syscalls: list[dict[str, Any]] = [{"names": allowed, "action": "SCMP_ACT_ALLOW"}]
    syscalls += document["conditional"]
    if "CAP_SYS_ADMIN" not in held:
        syscalls += document["without_sys_admin"]
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": _ARCHITECTURES.get(os.uname().machine, []),
        "syscalls": syscalls,
    }


@functools.cache
def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(files("cri.translate").joinpath("seccomp_default.json").read_text())
    return document
