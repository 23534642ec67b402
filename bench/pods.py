"""./run bench pods: a pod's life on Trivet and on containerd + runc, interleaved, with the ratio of medians."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.peer import Containerd, Peer, Trivet, pss_kib
from cri.api.v1 import api_pb2 as api
from trivet.demo import image as demo_image
from trivet.demo.registry import Registry

Samples = dict[str, dict[str, list[float]]]
#: what a kubelet asks for when the pod says nothing
_NAMESPACES = api.NamespaceOption(pid=api.CONTAINER)
_TICK = os.sysconf("SC_CLK_TCK")
_IDLE_SECONDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--pods", type=int, default=50, help="pods at once, and for memory")
    parser.add_argument("--only", choices=["trivet", "containerd"])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with ExitStack() as closing:
        registry = Registry()
        closing.callback(registry.close)
        reference, pause = _publish(registry)
        os.environ["TRIVET_BENCH_PAUSE"] = pause
        kinds = [kind for kind in (Trivet, Containerd) if arguments.only in (None, kind.name)]
        peers: list[Peer] = []
        for kind in kinds:
            peers.append(kind())
            closing.callback(peers[-1].close)
        samples: Samples = defaultdict(lambda: defaultdict(list))
        for peer in peers:
            peer.images.PullImage(api.PullImageRequest(image=api.ImageSpec(image=reference)))
            samples["start to first answer, s"][peer.name].append(peer.start_seconds)  # type: ignore[attr-defined]
            samples["programs with no pod, PSS MiB"][peer.name].append(pss_kib(peer.programs()) / 1024)
            _life(peer, reference, "warm-up", defaultdict(lambda: defaultdict(list)))
        for number in range(arguments.rounds):
            for peer in peers if number % 2 else reversed(peers):
                _life(peer, reference, f"r{number}", samples)
        for peer in peers:
            _crowd(peer, reference, arguments.pods, samples)
    _print(samples, [peer.name for peer in peers])
    if arguments.json:
        arguments.json.write_text(json.dumps(samples))


def _publish(registry: Registry) -> tuple[str, str]:
    layer = demo_image.build_layer()
    tools = registry.put_image("bench/tools", "1", [layer], {"Env": ["PATH=/bin"], "Cmd": ["sh"]})
    pause = registry.put_image("bench/pause", "1", [layer], {"Env": ["PATH=/bin"], "Entrypoint": ["sleep", "86399"]})
    return tools, pause


def _life(peer: Peer, reference: str, name: str, samples: Samples) -> None:
    def timed(what: str, work: Callable[[], Any]) -> Any:
        started = time.monotonic()
        answer = work()
        samples[f"{what}, ms"][peer.name].append((time.monotonic() - started) * 1000)
        return answer

    runtime = peer.runtime
    busy, began = _busy_ms(), time.monotonic()
    pod, config = timed("RunPodSandbox", lambda: _run(peer, name))
    request = _container_request(peer, pod, config, reference)
    container = timed("CreateContainer", lambda: runtime.CreateContainer(request)).container_id
    timed("StartContainer", lambda: runtime.StartContainer(api.StartContainerRequest(container_id=container)))
    samples["pod + container start, ms"][peer.name].append((time.monotonic() - began) * 1000)
    execute = api.ExecSyncRequest(container_id=container, cmd=["true"], timeout=20)
    timed("ExecSync true", lambda: runtime.ExecSync(execute))
    timed("StopContainer", lambda: runtime.StopContainer(api.StopContainerRequest(container_id=container, timeout=10)))
    timed("RemoveContainer", lambda: runtime.RemoveContainer(api.RemoveContainerRequest(container_id=container)))
    timed("StopPodSandbox", lambda: runtime.StopPodSandbox(api.StopPodSandboxRequest(pod_sandbox_id=pod)))
    timed("RemovePodSandbox", lambda: runtime.RemovePodSandbox(api.RemovePodSandboxRequest(pod_sandbox_id=pod)))
    samples["whole life, ms"][peer.name].append((time.monotonic() - began) * 1000)
    samples["whole life, CPU ms of all processes"][peer.name].append(_busy_ms() - busy)


def _crowd(peer: Peer, reference: str, count: int, samples: Samples) -> None:
    """`count` pods at once: pods per second, memory with one container each, idle CPU, lists with two each."""

    def one(number: int) -> tuple[str, Any]:
        pod, config = _run(peer, f"crowd{number}")
        add(pod, config, "c")
        return pod, config

    def add(pod: str, config: Any, name: str) -> None:
        request = _container_request(peer, pod, config, reference)
        request.config.metadata.name = name
        container = peer.runtime.CreateContainer(request).container_id
        peer.runtime.StartContainer(api.StartContainerRequest(container_id=container))

    started = time.monotonic()
    with ThreadPoolExecutor(count) as pool:
        made = list(pool.map(one, range(count)))
    samples[f"{count} pods at once, pods/s"][peer.name].append(count / (time.monotonic() - started))
    samples[f"beside the programs at {count} pods, PSS MiB per pod"][peer.name].append(pss_kib(peer.helpers()) / 1024 / count)
    samples[f"programs at {count} pods, PSS MiB"][peer.name].append(pss_kib(peer.programs()) / 1024)
    watched = peer.programs() + peer.helpers()
    before = _ticks(watched)
    time.sleep(_IDLE_SECONDS)  # the span that is measured
    samples[f"idle CPU at {count} pods, ms/s"][peer.name].append((_ticks(watched) - before) * 1000 / _TICK / _IDLE_SECONDS)
    for pod, config in made:
        add(pod, config, "second")
    for _round in range(50):
        begun = time.monotonic()
        peer.runtime.ListContainers(api.ListContainersRequest())
        samples[f"ListContainers with {2 * count}, ms"][peer.name].append((time.monotonic() - begun) * 1000)
    for _round in range(10):
        begun = time.monotonic()
        peer.runtime.ListContainerStats(api.ListContainerStatsRequest())
        samples[f"ListContainerStats with {2 * count}, ms"][peer.name].append((time.monotonic() - begun) * 1000)

    def remove(pod: str) -> None:
        peer.runtime.StopPodSandbox(api.StopPodSandboxRequest(pod_sandbox_id=pod))
        peer.runtime.RemovePodSandbox(api.RemovePodSandboxRequest(pod_sandbox_id=pod))

    started = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(remove, [pod for pod, _config in made]))
    samples[f"{count} pods removed, s"][peer.name].append(time.monotonic() - started)


def _run(peer: Peer, name: str) -> tuple[str, Any]:
    config = api.PodSandboxConfig(
        metadata=api.PodSandboxMetadata(name=name, uid=name, namespace="bench"),
        log_directory=str(peer.directory / "bench-logs"),
        linux=api.LinuxPodSandboxConfig(
            cgroup_parent=f"{peer.cgroup}/{name}",
            security_context=api.LinuxSandboxSecurityContext(namespace_options=_NAMESPACES),
        ),
    )
    return str(peer.runtime.RunPodSandbox(api.RunPodSandboxRequest(config=config)).pod_sandbox_id), config


def _container_request(peer: Peer, pod: str, config: Any, reference: str) -> Any:
    container = api.ContainerConfig(
        metadata=api.ContainerMetadata(name="c"),
        image=api.ImageSpec(image=reference),
        command=["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done"],
        log_path=f"{config.metadata.name}.log",
        linux=api.LinuxContainerConfig(
            resources=api.LinuxContainerResources(memory_limit_in_bytes=256 * 1024 * 1024),
            security_context=api.LinuxContainerSecurityContext(
                namespace_options=_NAMESPACES, seccomp=api.SecurityProfile(profile_type=api.SecurityProfile.RuntimeDefault)
            ),
        ),
    )
    return api.CreateContainerRequest(pod_sandbox_id=pod, config=container, sandbox_config=config)


def _ticks(pids: list[int]) -> int:
    """CPU time of these processes so far."""
    fields = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids)
    return sum(int(values[11]) + int(values[12]) for values in fields)


def _busy_ms() -> float:
    """CPU time of the whole machine so far."""
    user, nice, system, _idle, _wait, irq, soft = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + soft) * 1000 / _TICK


def _print(samples: Samples, names: list[str]) -> None:
    print(f"{'':52}" + "".join(f"{name + ' min / median / p95':>36}" for name in names) + f"{'ratio':>8}")
    for what, by_peer in samples.items():
        row = f"{what:52}"
        for name in names:
            values = sorted(by_peer[name])
            p95 = values[min(len(values) - 1, int(len(values) * 0.95))]
            row += f"{values[0]:>14.2f} / {statistics.median(values):>8.2f} / {p95:>8.2f}"
        if len(names) == 2:
            row += f"{statistics.median(by_peer[names[0]]) / statistics.median(by_peer[names[1]]):>8.2f}"
        print(row)


if __name__ == "__main__":
    main()
