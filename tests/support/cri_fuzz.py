"""Hostile calls of all CRI methods against a daemon with live pods, each made from a right one that differs in one to
three fields."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from cri.api.v1 import api_pb2 as api
from tests.support.cri_client import Client
from tests.support.hostile_messages import mutate, mutate_bytes, wire
from tests.support.raw_calls import Answer, RawCalls

#: what no request may cause, whatever is in it; a lost connection is UNAVAILABLE
FORBIDDEN = ("INTERNAL", "UNKNOWN", "UNAVAILABLE", "DATA_LOSS", "CANCELLED")
_CALL_SECONDS = 20.0
#: calls that make or change something come more often than those that look
_FREQUENT = ("CreateContainer", "RunPodSandbox", "UpdateContainerResources", "ExecSync", "PullImage", "StopContainer")
_CHANGING = (
    "CreateContainer",
    "RunPodSandbox",
    "StopContainer",
    "RemoveContainer",
    "StartContainer",
    "StopPodSandbox",
    "RemovePodSandbox",
)
_DAMAGED = 0.05
_OPTIONS = {
    "plain": api.NamespaceOption(pid=api.CONTAINER),
    "shared": api.NamespaceOption(pid=api.POD),
    "mapped": api.NamespaceOption(
        pid=api.CONTAINER,
        userns_options=api.UserNamespace(
            mode=api.POD,
            uids=[api.IDMapping(container_id=0, host_id=3_000_000, length=65536)],
            gids=[api.IDMapping(container_id=0, host_id=3_000_000, length=65536)],
        ),
    ),
}


@dataclass(slots=True)
class Finding:
    """A call that was not answered as it must be, with all that is needed to have it again."""

    seed: str
    method: str
    done: list[str]
    code: str
    details: str


@dataclass(slots=True)
class Report:
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)


class CriFuzz:
    """One daemon, three live pods with a container each, and calls until a deadline."""

    def __init__(self, client: Client, other_reference: str) -> None:
        """`other_reference`: an image that may be pulled and removed."""
        self._client, self._other = client, other_reference
        channel = client.node.channel()
        self._calls: dict[str, RawCalls] = {}
        for service in api.DESCRIPTOR.services_by_name.values():
            calls = RawCalls(channel, service)
            self._calls.update(dict.fromkeys(calls.names(), calls))
        del self._calls["GetContainerEvents"]  # which has nothing to be spoilt, and no end
        self._pods: dict[str, str] = {}
        self._containers: dict[str, str] = {}
        self._number = 0

    def open(self) -> None:
        """The live pods. No id begins with what a hostile one may be, for ids can be shortened."""
        for name, options in _OPTIONS.items():
            while not (pod := self._client.pod(name, security_context=_sandbox_security(options)))[0].isalpha():
                self._client.runtime.RemovePodSandbox(api.RemovePodSandboxRequest(pod_sandbox_id=pod))
            self._pods[name] = pod
            self._containers[name] = self._live_container(name)
            self._client.ended(self._client.run(pod, "exit 0", name="first", security=_container_security(options)))
        self._clean()

    def _live_container(self, name: str) -> str:
        while True:
            security = _container_security(_OPTIONS[name])
            container = self._client.run(self._pods[name], "trap '' TERM; sleep 100000", name="live", security=security)
            if container[0].isalpha():
                return container
            self._client.runtime.RemoveContainer(api.RemoveContainerRequest(container_id=container))

    def run(self, seconds: float, seed: int) -> Report:
        """Calls for `seconds`; the n-th of a seed is the same in each run, whatever came before."""
        report = Report()
        deadline = time.monotonic() + seconds
        number = 0
        while time.monotonic() < deadline:
            self.run_once(f"{seed}:{number}", report)
            number += 1
        return report

    def run_once(self, seed: str, report: Report) -> None:
        """The call of one seed, its check, and what it made taken away again."""
        rng = Random(seed)
        method = rng.choice((rng.choice(_FREQUENT), rng.choice(sorted(self._calls))))
        self._number += 1
        request = self._right(method, rng)
        done = mutate(request, rng)
        self._tame(request)
        content = wire(request)
        if rng.random() < _DAMAGED:
            content, damage = mutate_bytes(content, rng)
            done.append(damage)
        answer = self._call(report, seed, method, content, done)
        if answer.code == "OK":
            self._go_on(report, seed, method, answer.responses[0] if answer.responses else None, done)
        if method in _CHANGING:
            self._clean()

    def _call(self, report: Report, seed: str, method: str, content: bytes, done: list[str]) -> Answer:
        answer = self._calls[method].call(method, content, _CALL_SECONDS)
        report.calls[method, answer.code] += 1
        if self._is_wrong(method, answer):
            report.findings.append(Finding(seed, method, done, answer.code, answer.details[:500]))
        return answer

    def _go_on(self, report: Report, seed: str, method: str, response: Any, done: list[str]) -> None:
        """What was made of a hostile request is used: it must still be right to look at, and to start."""
        if method == "CreateContainer":
            for follower in ("StartContainer", "ContainerStatus", "ContainerStats"):
                request = self._calls[follower].request(follower)
                request.container_id = response.container_id
                self._call(report, seed, follower, request.SerializeToString(), done)
        if method == "RunPodSandbox":
            for follower in ("CreateContainer", "PodSandboxStatus", "PodSandboxStats"):
                request = self._calls[follower].request(follower)
                request.pod_sandbox_id = response.pod_sandbox_id
                if follower == "CreateContainer":
                    request.config.CopyFrom(self._container(Random(seed), api.NamespaceOption(pid=api.CONTAINER)))
                self._call(report, seed, follower, request.SerializeToString(), done)

    def _is_wrong(self, method: str, answer: Answer) -> bool:
        if answer.code == "DEADLINE_EXCEEDED":  # of a time-out that was asked for
            return method not in ("StopContainer", "ExecSync")
        return answer.code in FORBIDDEN

    def alive(self) -> dict[str, tuple[int, int]]:
        """State of each live pod and of its container: all of them are to be (READY, RUNNING) at any time."""
        runtime = self._client.runtime
        return {
            name: (
                runtime.PodSandboxStatus(api.PodSandboxStatusRequest(pod_sandbox_id=self._pods[name])).status.state,
                runtime.ContainerStatus(api.ContainerStatusRequest(container_id=self._containers[name])).status.state,
            )
            for name in self._pods
        }

    # -- right requests

    def _right(self, method: str, rng: Random) -> Any:
        """A request that would be served: of the live ones where it only looks, of something of its own where it ends it."""
        request = self._calls[method].request(method)
        make: Callable[[Any, Random], None] | None = getattr(self, f"_right_{method}", None)
        if make is not None:
            make(request, rng)
            return request
        name = rng.choice(sorted(self._pods))
        for field_, value in (("pod_sandbox_id", self._pods[name]), ("container_id", self._containers[name])):
            if field_ in request.DESCRIPTOR.fields_by_name:
                setattr(request, field_, value)
        return request

    def _right_RunPodSandbox(self, request: Any, rng: Random) -> None:
        name = f"fuzz{self._number}"
        request.config.CopyFrom(
            api.PodSandboxConfig(
                metadata=api.PodSandboxMetadata(name=name, uid=name, namespace="fuzz", attempt=1),
                hostname="fuzz",
                log_directory=str(self._client.logs),
                dns_config=api.DNSConfig(servers=["10.0.0.10"], searches=["a.example"], options=["ndots:5"]),
                port_mappings=[api.PortMapping(container_port=80, host_port=0)],
                labels={"a": "b"},
                annotations={"c": "d"},
                linux=api.LinuxPodSandboxConfig(
                    cgroup_parent=f"{self._client.node.cgroup}/fuzz",
                    security_context=_sandbox_security(_OPTIONS[rng.choice(sorted(_OPTIONS))]),
                    sysctls={"net.ipv4.ip_forward": "0"},
                    resources=api.LinuxContainerResources(cpu_shares=100),
                ),
            )
        )

    def _right_CreateContainer(self, request: Any, rng: Random) -> None:
        name = rng.choice(sorted(self._pods))
        request.pod_sandbox_id = self._pods[name]
        request.config.CopyFrom(self._container(rng, _OPTIONS[name]))
        request.sandbox_config.metadata.name = name

    def _container(self, rng: Random, options: Any) -> Any:
        return api.ContainerConfig(
            metadata=api.ContainerMetadata(name=f"fuzz{self._number}", attempt=1),
            image=api.ImageSpec(image=self._client.reference),
            command=["sh"],
            args=["-c", "echo hello; sleep 100000"],
            working_dir="/",
            envs=[api.KeyValue(key="A", value=b"b")],
            mounts=[api.Mount(container_path="/mnt/logs", host_path=str(self._client.logs), readonly=True)],
            devices=[api.Device(container_path="/dev/hostile", host_path="/dev/null", permissions="rw")]
            if rng.random() < 0.2
            else [],
            labels={"a": "b"},
            annotations={"c": "d"},
            log_path=f"fuzz{self._number}.log",
            linux=api.LinuxContainerConfig(
                resources=api.LinuxContainerResources(cpu_shares=100, memory_limit_in_bytes=64 << 20, oom_score_adj=10),
                security_context=_container_security(options),
            ),
        )

    def _right_ExecSync(self, request: Any, rng: Random) -> None:
        request.container_id = self._containers[rng.choice(sorted(self._containers))]
        request.cmd.extend(["sh", "-c", "echo x"])
        request.timeout = 5

    def _right_UpdateContainerResources(self, request: Any, rng: Random) -> None:
        request.container_id = self._containers[rng.choice(sorted(self._containers))]
        request.linux.cpu_shares = 200

    def _right_StopContainer(self, request: Any, rng: Random) -> None:
        request.container_id = self._disposable_container(rng)
        request.timeout = 0

    def _right_RemoveContainer(self, request: Any, rng: Random) -> None:
        request.container_id = self._disposable_container(rng)

    def _right_StartContainer(self, request: Any, rng: Random) -> None:
        request.container_id = self._disposable_container(rng)

    def _disposable_container(self, rng: Random) -> str:
        name = rng.choice(sorted(self._pods))
        request = api.CreateContainerRequest(pod_sandbox_id=self._pods[name], config=self._container(rng, _OPTIONS[name]))
        container = self._client.runtime.CreateContainer(request).container_id
        if rng.random() < 0.5:
            self._client.runtime.StartContainer(api.StartContainerRequest(container_id=container))
        return str(container)

    def _right_StopPodSandbox(self, request: Any, rng: Random) -> None:
        request.pod_sandbox_id = self._disposable_pod(rng)

    def _right_RemovePodSandbox(self, request: Any, rng: Random) -> None:
        request.pod_sandbox_id = self._disposable_pod(rng)

    def _disposable_pod(self, rng: Random) -> str:
        request = api.RunPodSandboxRequest()
        self._right_RunPodSandbox(request, rng)
        return str(self._client.runtime.RunPodSandbox(request).pod_sandbox_id)

    def _right_PullImage(self, request: Any, _rng: Random) -> None:
        request.image.image = self._other
        request.auth.username, request.auth.password = "who", "secret"

    def _right_RemoveImage(self, request: Any, _rng: Random) -> None:
        self._client.images.PullImage(api.PullImageRequest(image=api.ImageSpec(image=self._other)))
        request.image.image = self._other

    def _right_ImageStatus(self, request: Any, _rng: Random) -> None:
        request.image.image = self._client.reference

    # -- keeping it within the test's own directories

    def _tame(self, request: Any) -> None:
        """A path that would be made on the host is one below the test's."""
        config = getattr(request, "config", None)
        if isinstance(config, api.PodSandboxConfig):
            if config.log_directory.startswith("/") and ".." not in config.log_directory:
                config.log_directory = self._below(str(self._client.logs), config.log_directory)
            if config.linux.cgroup_parent.startswith("/"):
                config.linux.cgroup_parent = self._below(self._client.node.cgroup, config.linux.cgroup_parent)
            elif config.HasField("linux") and not config.linux.cgroup_parent:
                config.linux.cgroup_parent = f"{self._client.node.cgroup}/fuzz"

    def _below(self, directory: str, path: str) -> str:
        return path if path.startswith(directory) else directory + path

    def _clean(self) -> None:
        """Nothing but the live ones stays."""
        runtime = self._client.runtime
        for container in runtime.ListContainers(api.ListContainersRequest()).containers:
            if container.id not in self._containers.values():
                runtime.RemoveContainer(api.RemoveContainerRequest(container_id=container.id))
        for pod in runtime.ListPodSandbox(api.ListPodSandboxRequest()).items:
            if pod.id not in self._pods.values():
                runtime.RemovePodSandbox(api.RemovePodSandboxRequest(pod_sandbox_id=pod.id))


def _sandbox_security(options: Any) -> Any:
    return api.LinuxSandboxSecurityContext(namespace_options=options)


def _container_security(options: Any) -> Any:
    return api.LinuxContainerSecurityContext(namespace_options=options)
