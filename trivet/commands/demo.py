"""trivet demo: everything a newcomer wants to see, through CRI gRPC alone, timed, and nothing left behind."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, TypeVar

from cri.api.v1 import api_pb2 as api
from runtime_core.errors import DataLoss
from trivet.demo import image
from trivet.demo.node import DemoNode
from trivet.demo.registry import Registry

Answer = TypeVar("Answer")
_INTERRUPTED = 130
_WRITER = "echo the writer is here; hostname; while :; do sleep 1; done"
_SLEEPER = "echo the sleeper is here; while :; do sleep 1; done"


class Table:
    """Steps as they happen: what, how long, what came of it."""

    def step(self, what: str, work: Callable[[], Answer], describe: Callable[[Answer], str] = lambda _answer: "") -> Answer:
        """Run `work` and print a line with its time."""
        started = time.monotonic()
        answer = work()
        milliseconds = (time.monotonic() - started) * 1000
        print(f"  {what:<44}{milliseconds:>9.1f} ms   {describe(answer)}".rstrip(), flush=True)
        return answer


def demo() -> int:
    """Exit status. Whatever ends it early, what it has made is given back."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _show(Table())
    except KeyboardInterrupt:
        print("trivet: interrupted; everything has been removed", file=sys.stderr)
        return _INTERRUPTED
    print("\nNothing is left behind. `trivet plugins` lists the parts; README.md says how to point a kubelet at it.")
    return 0


def _show(table: Table) -> None:
    print("Trivet: a pod from an image, a network and two containers; then its daemon is killed.\n")
    with ExitStack() as closing:
        registry = Registry()
        closing.callback(registry.close)
        node = DemoNode()
        closing.callback(lambda: table.step("remove the pod, stop, clean up", node.close))
        reference = table.step("make an image of this machine's programs", lambda: _publish(registry))
        table.step("start trivet-cri", node.start)
        table.step("pull it from a registry on loopback", lambda: _pull(node, reference), lambda id_: id_[7:19])
        sandbox, config = table.step("RunPodSandbox", lambda: _run(node), lambda found: found[0][:12])
        containers = [
            _container(table, node, sandbox, config, reference, *arguments)
            for arguments in (("writer", _WRITER), ("sleeper", _SLEEPER))
        ]
        address = table.step("the pod's address", lambda: _address(node, sandbox), str)
        assert address
        table.step("ExecSync: uname -s", lambda: _exec(node, containers[0], "uname", "-s"), str)
        table.step("the writer's log", lambda: _log(node), str)
        before = table.step("its processes", lambda: _exec(node, containers[0], "ps"), _processes)
        table.step("kill -9 the daemon", node.kill)
        table.step("start it again", node.start)
        after = table.step("the same pod, still running", lambda: _exec(node, containers[0], "ps"), _processes)
        if _states(node) != [api.CONTAINER_RUNNING] * 2 or not before or not after:
            raise DataLoss("the pod did not survive the daemon")


def _publish(registry: Registry) -> str:
    return registry.put_image("demo/tools", "1", [image.build_layer()], {"Env": ["PATH=/bin"], "Cmd": ["sh"]})


def _pull(node: DemoNode, reference: str) -> str:
    request = api.PullImageRequest(image=api.ImageSpec(image=reference))
    return str(node.images().PullImage(request).image_ref)


def _run(node: DemoNode) -> tuple[str, Any]:
    logs = node.directory / "logs"
    logs.mkdir()
    config = api.PodSandboxConfig(
        metadata=api.PodSandboxMetadata(name="demo", uid="demo", namespace="default"),
        hostname="demo",
        log_directory=str(logs),
        linux=api.LinuxPodSandboxConfig(cgroup_parent=node.cgroup),
    )
    answer = node.runtime().RunPodSandbox(api.RunPodSandboxRequest(config=config))
    return str(answer.pod_sandbox_id), config


def _container(table: Table, node: DemoNode, sandbox: str, pod: Any, reference: str, name: str, script: str) -> str:
    config = api.ContainerConfig(
        metadata=api.ContainerMetadata(name=name),
        image=api.ImageSpec(image=reference),
        command=["sh", "-c", script],
        log_path=f"{name}.log",
        linux=api.LinuxContainerConfig(
            resources=api.LinuxContainerResources(memory_limit_in_bytes=64 * 1024 * 1024),
            security_context=api.LinuxContainerSecurityContext(
                no_new_privs=True, seccomp=api.SecurityProfile(profile_type=api.SecurityProfile.RuntimeDefault)
            ),
        ),
    )
    request = api.CreateContainerRequest(pod_sandbox_id=sandbox, config=config, sandbox_config=pod)
    created = table.step(
        f"CreateContainer {name}", lambda: node.runtime().CreateContainer(request), lambda a: str(a.container_id[:12])
    )
    table.step(
        f"StartContainer {name}",
        lambda: node.runtime().StartContainer(api.StartContainerRequest(container_id=created.container_id)),
    )
    return str(created.container_id)


def _address(node: DemoNode, sandbox: str) -> str:
    return str(node.runtime().PodSandboxStatus(api.PodSandboxStatusRequest(pod_sandbox_id=sandbox)).status.network.ip)


def _exec(node: DemoNode, container: str, *command: str) -> str:
    request = api.ExecSyncRequest(container_id=container, cmd=command, timeout=10)
    return str(node.runtime().ExecSync(request).stdout.decode().strip())


def _log(node: DemoNode) -> str:
    lines = (node.directory / "logs" / "writer.log").read_text().splitlines()
    return " | ".join(line.split(" ", 3)[3] for line in lines)


def _processes(listing: str) -> str:
    return f"{len(listing.splitlines()) - 1} processes"


def _states(node: DemoNode) -> list[int]:
    return [c.state for c in node.runtime().ListContainers(api.ListContainersRequest()).containers]
