"""A container's configuration and its image to an OCI runtime spec. Pure: what it needs to know comes in."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cri.api.v1 import api_pb2 as api
from cri.translate import names, security, users
from cri.translate.mounts import id_mappings, oci_mounts
from cri.translate.resources import oci_resources
from runtime_core.errors import InvalidArgument
from runtime_core.sandbox.records import SandboxRecord

_DEFAULT_MASKED_PATHS = (
    "/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
    "/sys/devices/virtual/powercap",
)  # fmt: skip
_DEFAULT_READ_ONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: what every container may use: (type, major, minor, access); None is any
_DEVICE_RULES = (
    ("c", None, None, "m"), ("b", None, None, "m"), ("c", 1, 3, "rwm"), ("c", 1, 5, "rwm"), ("c", 1, 7, "rwm"),
    ("c", 1, 8, "rwm"), ("c", 1, 9, "rwm"), ("c", 5, 0, "rwm"), ("c", 5, 1, "rwm"), ("c", 5, 2, "rwm"),
    ("c", 136, None, "rwm"),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A node of the host, as its lstat says."""

    path: str
    mode: int
    major: int
    minor: int
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the machine is and has."""

    capabilities: Sequence[str]
    is_cgroup_v2: bool = False
    #: all devices, which a privileged container gets
    devices: Sequence[Device] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What `container_spec` is computed from."""

    id: str
    config: api.ContainerConfig
    sandbox: SandboxRecord
    #: config object of the OCI image configuration
    image: dict[str, Any]
    facts: Facts
    passwd: bytes = b""
    group: bytes = b""
    #: of a Localhost profile, already read
    localhost_profile: dict[str, Any] | None = None
    #: host path → device, for config.devices
    devices: dict[str, Device] = field(default_factory=dict)
    #: of the image: destination → directory of the host
    volumes: dict[str, str] = field(default_factory=dict)
    #: host PID whose PID namespace is joined (PID mode target)
    pid_target: int = 0


def container_spec(inputs: Inputs) -> dict[str, Any]:
    """The OCI runtime spec, version 1.2. InvalidArgument naming the field of CRI for what cannot be."""
    config, context = inputs.config, inputs.config.linux.security_context
    sandbox = inputs.sandbox
    user = users.resolve_user(context, str(inputs.image.get("User") or ""), inputs.passwd, inputs.group)
    capabilities = security.capability_sets(context, inputs.facts.capabilities, user.uid)
    parent = sandbox.spec.cgroup_parent
    return {
        "ociVersion": "1.2.0",
        "hostname": sandbox.spec.hostname,
        "root": {"path": f"{sandbox.directory}/rootfs", "readonly": context.readonly_rootfs},
        "process": _process(inputs, user, capabilities),
        "mounts": oci_mounts(config, sandbox, inputs.volumes, privileged=context.privileged),
        "annotations": dict(config.annotations),
        "linux": {
            "cgroupsPath": f"{parent}/{inputs.id}",
            "namespaces": _namespaces(inputs),
            "resources": {
                **oci_resources(config.linux.resources, "config.linux.resources", is_v2=inputs.facts.is_cgroup_v2),
                "devices": _device_rules(inputs),
            },
            "devices": _devices(inputs),
            "rootfsPropagation": _root_propagation(config),
            "seccomp": _seccomp(context, inputs.localhost_profile, capabilities["bounding"]),
            **_masked_paths(context, has_user=bool(sandbox.spec.uid_mappings)),
            **id_mappings(sandbox),
        },
    }


def _process(inputs: Inputs, user: users.User, capabilities: dict[str, list[str]]) -> dict[str, Any]:
    config, image = inputs.config, inputs.image
    arguments = list(config.command) or list(image.get("Entrypoint") or [])
    arguments += list(config.args) or ([] if config.command else list(image.get("Cmd") or []))
    if not arguments:
        raise InvalidArgument("config.command: neither the container nor its image names a program")
    if config.stdin_once and not config.stdin:
        raise InvalidArgument("config.stdin_once: needs config.stdin")
    return {
        "args": arguments,
        "cwd": names.check_absolute_path(config.working_dir or image.get("WorkingDir") or "/", "config.working_dir"),
        "env": environment(image.get("Env") or [], config, user.home, inputs.sandbox.spec.hostname),
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups), "umask": 0o022},
        "terminal": config.tty,
        "capabilities": capabilities,
        "noNewPrivileges": config.linux.security_context.no_new_privs,
        "oomScoreAdj": config.linux.resources.oom_score_adj,
    }


def environment(image: Sequence[str], config: api.ContainerConfig, home: str, hostname: str) -> list[str]:
    """The image's variables, the caller's over them, PATH, HOSTNAME and HOME where neither says."""
    found = {}
    for entry in (_DEFAULT_PATH, *image):
        key, _, value = entry.partition("=")
        if not key:
            raise InvalidArgument(f"the image's Env: {entry!r} has no name")
        found[key] = value
    if hostname:
        found.setdefault("HOSTNAME", hostname)
    if config.tty:
        found.setdefault("TERM", "xterm")
    for number, env in enumerate(config.envs):
        if not env.key or "=" in env.key:
            raise InvalidArgument(f"config.envs[{number}].key: {env.key!r} is not the name of a variable")
        found[env.key] = _value(env)
    found.setdefault("HOME", home)
    return [f"{key}={value}" for key, value in found.items()]


def _value(env: api.KeyValue) -> str:
    """CRI has values as bytes since 1.37; what is not UTF-8 survives to execve(2)."""
    return env.value.decode(errors="surrogateescape")


def _namespaces(inputs: Inputs) -> list[dict[str, str]]:
    options = inputs.config.linux.security_context.namespace_options
    sandbox = inputs.sandbox
    has_user = bool(sandbox.spec.uid_mappings)
    if options.userns_options.mode == api.POD and options.HasField("userns_options") and not has_user:
        raise InvalidArgument("config.linux.security_context.namespace_options.userns_options: the pod has no user namespace")
    found = [{"type": "mount"}, {"type": "cgroup"}, *([{"type": "user"}] if has_user else [])]
    for kind, name, is_own in (
        ("network", "net", sandbox.spec.own_network),
        ("ipc", "ipc", sandbox.spec.own_ipc),
        ("uts", "uts", sandbox.spec.own_network),
    ):
        if is_own:
            found.append({"type": kind, "path": f"/proc/{sandbox.monitor_pid}/ns/{name}"})
    if inputs.pid_target:
        found.append({"type": "pid", "path": f"/proc/{inputs.pid_target}/ns/pid"})
    elif options.pid == api.POD and sandbox.init_pid:
        found.append({"type": "pid", "path": f"/proc/{sandbox.init_pid}/ns/pid"})
    elif options.pid != api.NODE:
        found.append({"type": "pid"})
    elif sandbox.spec.pid_mode != "node":
        raise InvalidArgument("config.linux.security_context.namespace_options.pid: the pod does not use the node's PIDs")
    return found


def _masked_paths(context: api.LinuxContainerSecurityContext, *, has_user: bool) -> dict[str, list[str]]:
    if context.privileged:
        return {"maskedPaths": [], "readonlyPaths": []}
    # A kubelet always says what is to be hidden; with procMount: Unmasked, which needs a user namespace, it is
    # nothing. Elsewhere empty lists are those of a client that does not know of them, and mean the defaults.
    masked = list(context.masked_paths) or ([] if has_user else list(_DEFAULT_MASKED_PATHS))
    read_only = list(context.readonly_paths) or ([] if has_user else list(_DEFAULT_READ_ONLY_PATHS))
    for field_, paths in (("masked_paths", masked), ("readonly_paths", read_only)):
        for path in paths:
            names.check_absolute_path(path, f"config.linux.security_context.{field_}")
    return {"maskedPaths": masked, "readonlyPaths": read_only}


def _device_rules(inputs: Inputs) -> list[dict[str, Any]]:
    if inputs.config.linux.security_context.privileged:
        return [{"allow": True, "access": "rwm"}]
    rules = [{"allow": False, "access": "rwm"}]
    rules += [_rule(*rule) for rule in _DEVICE_RULES]
    for wanted in inputs.config.devices:
        device = inputs.devices[wanted.host_path]
        rules.append(_rule(_kind(device), device.major, device.minor, wanted.permissions or "rwm"))
    return rules


def _rule(kind: str, major: int | None, minor: int | None, access: str) -> dict[str, Any]:
    if not access or set(access) - set("rwm"):
        raise InvalidArgument(f"config.devices: permissions {access!r} are not of r, w and m")
    numbers = {key: value for key, value in (("major", major), ("minor", minor)) if value is not None}
    return {"allow": True, "type": kind, "access": access, **numbers}


def _devices(inputs: Inputs) -> list[dict[str, Any]]:
    found = [
        _device(
            inputs.devices[wanted.host_path], names.check_absolute_path(wanted.container_path, "config.devices.container_path")
        )
        for wanted in inputs.config.devices
    ]
    if inputs.config.linux.security_context.privileged:
        taken = {device["path"] for device in found}
        found += [_device(device, device.path) for device in inputs.facts.devices if device.path not in taken]
    return found


def _device(device: Device, path: str) -> dict[str, Any]:
    return {
        "path": path,
        "type": _kind(device),
        "major": device.major,
        "minor": device.minor,
        "fileMode": stat.S_IMODE(device.mode),
        "uid": device.uid,
        "gid": device.gid,
    }


def _kind(device: Device) -> str:
    return "b" if stat.S_ISBLK(device.mode) else "c"


def _root_propagation(config: api.ContainerConfig) -> str:
    """Shared only where a mount of the container must reach the host."""
    is_shared = any(mount.propagation == api.PROPAGATION_BIDIRECTIONAL for mount in config.mounts)
    return "rshared" if is_shared else "rslave"


def _seccomp(
    context: api.LinuxContainerSecurityContext, localhost: dict[str, Any] | None, held: Sequence[str]
) -> dict[str, Any] | None:
    kind, _path = security.seccomp_kind(context)
    if kind == "default":
        return security.default_profile(held)
    return localhost if kind == "localhost" else None
