"""The contract of `trivet.network`: a pod's network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from runtime_core.errors import TrivetError


@dataclass(frozen=True, slots=True, kw_only=True)
class PodNetwork:
    """What a driver has to know of a pod; kept in its record, so DEL works after any restart."""

    pod_id: str
    name: str
    namespace: str
    uid: str
    netns_path: str
    #: runtime handler of the pod
    handler: str = ""
    #: [{"hostPort": 80, "containerPort": 80, "protocol": "tcp", "hostIP": ""}], CNI capability portMappings
    port_mappings: Sequence[Mapping[str, Any]] = ()
    #: CNI capability bandwidth: ingressRate, ingressBurst, egressRate, egressBurst (bits per second)
    bandwidth: Mapping[str, int] = field(default_factory=dict)
    #: CNI capability dns: servers, searches, options
    dns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    cgroup_path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachedNetwork:
    """What `attach` gives: the pod's addresses without prefix length, and the driver's own result."""

    #: addresses without prefix length, the primary one first
    addresses: Sequence[str]
    #: the CNI result (or what the driver has like it), for `PodSandboxStatus(verbose)`
    result: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkStatus:
    """Whether pods can be attached now; `reason` in CamelCase and `message` say why not."""

    is_ready: bool
    reason: str = ""
    message: str = ""


@runtime_checkable
class Network(Protocol):
    """The contract: runtime_core/testing/network_contract.py."""

    def attach(self, pod: PodNetwork) -> AttachedNetwork:
        """Connect the pod. On error nothing of it is left; a pod that is attached stays so, and the answer is the
        same. Raises Unavailable when no network is configured."""
        ...

    def detach(self, pod: PodNetwork) -> None:
        """Disconnect. Idempotent, works with the namespace gone and the configuration changed."""
        ...

    def check(self, pods: Sequence[PodNetwork], report_problem: Callable[[str, TrivetError], None]) -> None:
        """Look, in the background, whether each pod's network still stands; `report_problem` is called with the pod's
        id and what is wrong, possibly in another thread. Returns at once, changes nothing and never raises."""
        ...

    def collect_garbage(self, pods: Sequence[PodNetwork]) -> None:
        """Release whatever belongs to none of `pods`. Goes on after a failure, and raises in the end."""
        ...

    def status(self) -> NetworkStatus:
        """From memory: never blocks, though what it says may be some seconds old."""
        ...

    def close(self) -> None:
        """End what works in the background; attachments stay. Idempotent."""
        ...
