"""The contract of `trivet.runtime`: how a pod's containers are made, started, updated and killed.

A driver is constructed once per daemon with `RuntimeContext` and is called from many
threads. Every call is blocking, raises errors of `runtime_core.errors`, and what a
call has begun it finishes or undoes. The OCI runtime spec (a plain JSON object) is
the one description of a container.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from runtime_core.errors import FailedPrecondition


class PodLost(FailedPrecondition):
    """The pod's monitor has died. Nothing can be done in the pod any more; how its containers ended is being told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdMapping:
    """One line of /proc/PID/uid_map (user_namespaces(7))."""

    container_id: int
    host_id: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSpec:
    """What a pod's monitor needs to make and pin the pod's namespaces."""

    id: str
    #: 0700 directory of this pod; monitor.sock and exits/<container id> live in it
    directory: str
    #: where the network namespace is pinned (bind mount of an nsfs file); "" = the node's network
    netns_path: str = ""
    own_ipc: bool = True
    own_uts: bool = True
    #: "pod": one PID namespace with a forked init as PID 1; "container": one each; "node": the host's
    pid_mode: str = "container"
    hostname: str = ""
    #: namespaced sysctls, applied inside the pod's network and IPC namespaces
    sysctls: Mapping[str, str] = field(default_factory=dict)
    #: empty = no user namespace
    uid_mappings: Sequence[IdMapping] = ()
    gid_mappings: Sequence[IdMapping] = ()
    #: cgroup of the pod's own processes (pid_mode "pod" alone has one), e.g. /kubepods/podX/<pod id>
    cgroup_path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RootMount:
    """One mount that makes a root file system, as a snapshotter describes it; made inside the
    container's own mount namespace, so that none of it outlives the container."""

    #: "overlay" | "bind"
    type: str
    #: bind: the directory
    source: str = ""
    #: overlay: lowest layer LAST, as in overlayfs' lowerdir
    lower: Sequence[str] = ()
    upper: str = ""
    work: str = ""
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """One container to be created in a pod."""

    id: str
    pod_id: str
    #: OCI runtime spec, version 1.2; linux.cgroupsPath is absolute within the hierarchy
    spec: dict[str, Any]
    root: RootMount
    #: absolute path of the CRI log file; "" = output is discarded
    log_path: str = ""
    #: keep a stdin pipe open (CRI ContainerConfig.stdin), and close it after the first attach
    stdin: bool = False
    stdin_once: bool = False
    #: PID mode target: join the PID namespace of this container instead
    pid_target: str = ""
    #: signal that asks the program to end
    stop_signal: int = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerExit:
    """The truth about how a container ended, as its monitor wrote it to disk."""

    pod_id: str
    container_id: str
    #: 0..255; 128 + signal when a signal ended it
    exit_code: int
    #: nanoseconds since the epoch
    finished_at: int
    #: the kernel's OOM killer took a process of its cgroup
    oom_killed: bool = False
    #: "" or why it never ran
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerProcess:
    """What a monitor says about one container that it has."""

    id: str
    #: "created" | "running" | "stopped"
    status: str
    #: host PID of the init, 0 once stopped
    pid: int
    #: nanoseconds since the epoch, 0 when not yet
    started_at: int = 0
    exit: ContainerExit | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecResult:
    """Outcome of `exec_sync`; each stream is cut at 16 MiB (CVE-2022-1708)."""

    exit_code: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeContext:
    """What every driver is given at construction."""

    #: asks the launcher for a forked job: see runtime_core.launcher.client.Launcher
    launcher: Any
    #: entry point of the cgroup manager, "module:attribute", loadable where stevedore is not
    cgroup_manager: str
    #: called once for each exit, also for those found on disk by `recover_pod`; like the next one
    #: again a while later when it raises
    on_exit: Callable[[ContainerExit], None]
    #: called when a pod's monitor has died, before its containers are cleaned up and their exits told: (pod id)
    on_pod_lost: Callable[[str], None]
    #: of the driver's own; it survives a reboot, and whoever wants it makes it
    directory: str
    #: runtime-handlers.NAME.settings of the configuration; a driver refuses a key that it does not know
    settings: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Runtime(Protocol):
    """The contract: runtime_core/testing/runtime_contract.py. What is asked of a container in a pod whose monitor has
    died raises PodLost, also when it dies meanwhile; `delete` works all the same."""

    def open_pod(self, pod: PodSpec) -> tuple[int, int]:
        """Start the pod's monitor and make its namespaces; PIDs of the monitor and of the pod's own PID 1
        (0 when it has none). Nothing is left on error."""
        ...

    def close_pod(self, pod: PodSpec) -> None:
        """Kill everything in the pod, end its monitor, unpin its namespaces. Idempotent, also when the
        monitor is long dead (works from `pod` alone)."""
        ...

    def recover_pod(self, pod: PodSpec) -> list[ContainerProcess]:
        """Reconnect to a monitor of an earlier daemon; NotFound when it is dead."""
        ...

    def create(self, container: ContainerSpec) -> int:
        """Everything but the exec of the program; PID of the container's init."""
        ...

    def start(self, pod_id: str, container_id: str) -> int:
        """Let the program run; nanoseconds since the epoch. Raises with the exec's errno when it cannot."""
        ...

    def kill(self, pod_id: str, container_id: str, signal: int, *, everything: bool = False) -> None:
        """Signal the init, or every process of the container. NotFound when it is unknown; no error
        when it is already dead."""
        ...

    def delete(self, pod_id: str, container_id: str) -> None:
        """Forget a container: kill what is left of it, remove its cgroup and exit file. Idempotent."""
        ...

    def exec_sync(self, pod_id: str, container_id: str, process: dict[str, Any], timeout: float | None) -> ExecResult:
        """Run an OCI `process` in a running container; DeadlineExceeded (and its tree killed) after
        `timeout` seconds, FailedPrecondition when the container does not run."""
        ...

    def update(self, pod_id: str, container_id: str, resources: dict[str, Any]) -> None:
        """Apply OCI `linux.resources`: all of it or an error."""
        ...

    def reopen_log(self, pod_id: str, container_id: str) -> None:
        """Open the container's log file anew, after it was rotated. FailedPrecondition when it does not run."""
        ...

    def features(self) -> dict[str, Any]:
        """OCI `features` document of what this driver can do."""
        ...
