"""Records of pods and containers: JSON in the store, frozen objects in memory."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from runtime_core.interfaces.network import PodNetwork
from runtime_core.interfaces.runtime import IdMapping, PodSpec


class State(enum.IntEnum):
    """CRI ContainerState."""

    CREATED = 0
    RUNNING = 1
    EXITED = 2
    UNKNOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSpec:
    """What a RunPodSandboxRequest asks for, checked."""

    id: str
    #: unique name, reserved while the pod exists: name_namespace_uid_attempt
    name: str
    #: name, uid, namespace, attempt
    metadata: dict[str, Any]
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    hostname: str = ""
    log_directory: str = ""
    #: servers, searches, options
    dns: dict[str, list[str]] = field(default_factory=dict)
    port_mappings: list[dict[str, Any]] = field(default_factory=list)
    handler: str = ""
    cgroup_parent: str = ""
    own_network: bool = True
    own_ipc: bool = True
    #: "pod", "container" or "node"
    pid_mode: str = "container"
    sysctls: dict[str, str] = field(default_factory=dict)
    privileged: bool = False
    #: of the pod's user namespace, (container id, host id, size); none: it is in the node's
    uid_mappings: list[tuple[int, int, int]] = field(default_factory=list)
    gid_mappings: list[tuple[int, int, int]] = field(default_factory=list)
    #: digest of the request, by which its retry is known
    request: str = ""

    def root_on_host(self) -> tuple[int, int]:
        """(uid, gid) on the host of who is root in the pod."""
        uid, gid = (
            next((host for container, host, _size in mappings if container == 0), 0)
            for mappings in (self.uid_mappings, self.gid_mappings)
        )
        return uid, gid


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxRecord:
    """A pod as it is: its specification and what it has acquired."""

    spec: SandboxSpec
    is_ready: bool
    #: nanoseconds since the epoch
    created_at: int
    directory: str
    netns_path: str
    monitor_pid: int
    #: PID 1 of a shared PID namespace
    init_pid: int = 0
    addresses: list[str] = field(default_factory=list)
    network: dict[str, Any] = field(default_factory=dict)

    def pod(self) -> PodSpec:
        """What the runtime has to know of the pod."""
        return pod_spec(self.spec, self.directory, self.netns_path)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerRecord:
    """A container as it is; times in nanoseconds since the epoch."""

    id: str
    name: str
    sandbox_id: str
    metadata: dict[str, Any]
    #: as the caller wrote it
    image: str
    #: image id
    image_ref: str
    labels: dict[str, str]
    annotations: dict[str, str]
    #: as in CRI Mount: container_path, host_path, readonly, selinux_relabel, propagation, recursive_read_only
    mounts: list[dict[str, Any]]
    log_path: str
    cgroup_path: str
    stop_signal: int
    #: the OCI process, which exec starts from
    process: dict[str, Any]
    #: OCI linux.resources, as last set
    resources: dict[str, Any]
    created_at: int
    state: State = State.CREATED
    started_at: int = 0
    finished_at: int = 0
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    #: digest of the request, by which its retry is known
    request: str = ""


def pod_spec(spec: SandboxSpec, directory: str, netns_path: str) -> PodSpec:
    return PodSpec(
        id=spec.id,
        directory=directory,
        netns_path=netns_path,
        own_ipc=spec.own_ipc,
        own_uts=spec.own_network,
        pid_mode=spec.pid_mode,
        hostname=spec.hostname,
        sysctls=spec.sysctls,
        cgroup_path=f"{spec.cgroup_parent}/{spec.id}" if spec.pid_mode == "pod" else "",
        uid_mappings=[_mapping(entry) for entry in spec.uid_mappings],
        gid_mappings=[_mapping(entry) for entry in spec.gid_mappings],
    )


def _mapping(entry: Sequence[int]) -> IdMapping:
    return IdMapping(container_id=entry[0], host_id=entry[1], size=entry[2])


def pod_network(spec: SandboxSpec, netns_path: str) -> PodNetwork:
    return PodNetwork(
        pod_id=spec.id,
        name=spec.metadata["name"],
        namespace=spec.metadata["namespace"],
        uid=spec.metadata["uid"],
        netns_path=netns_path,
        handler=spec.handler,
        port_mappings=spec.port_mappings,
        dns=spec.dns,
        cgroup_path=spec.cgroup_parent,
    )


def encode(record: SandboxRecord | ContainerRecord) -> dict[str, Any]:
    return asdict(record)


def decode_sandbox(document: dict[str, Any]) -> SandboxRecord:
    return SandboxRecord(**{**document, "spec": SandboxSpec(**document["spec"])})


def decode_container(document: dict[str, Any]) -> ContainerRecord:
    return ContainerRecord(**{**document, "state": State(document["state"])})
