"""A daemon with one image, and short words for what the tests do with it."""

from __future__ import annotations

from typing import Any

from cri.api.v1 import api_pb2 as api
from e2e.wait import wait_for
from trivet.demo.node import DemoNode


class Client:
    """A daemon with one image, and short words for what the tests do."""

    def __init__(self, node: DemoNode, reference: str) -> None:
        self.node, self.reference = node, reference
        self.runtime, self.images = node.runtime(), node.images()
        self.logs = node.directory / "logs"
        self.logs.mkdir()

    def pod(self, name: str, **linux: Any) -> str:
        config = api.PodSandboxConfig(
            metadata=api.PodSandboxMetadata(name=name, uid=name, namespace="t"),
            log_directory=str(self.logs),
            linux=api.LinuxPodSandboxConfig(cgroup_parent=f"{self.node.cgroup}/{name}", **linux),
        )
        return str(self.runtime.RunPodSandbox(api.RunPodSandboxRequest(config=config)).pod_sandbox_id)

    def create(self, pod: str, script: str, *, security: Any = None, resources: Any = None, **config: Any) -> str:
        container = api.ContainerConfig(
            metadata=config.pop("metadata", None) or api.ContainerMetadata(name=config.pop("name", "c")),
            image=api.ImageSpec(image=config.pop("image", self.reference)),
            log_path=config.pop("log_path", "c.log"),
            linux=api.LinuxContainerConfig(security_context=security, resources=resources),
            **{"command": ["sh", "-c", script], **config},
        )
        request = api.CreateContainerRequest(pod_sandbox_id=pod, config=container)
        return str(self.runtime.CreateContainer(request).container_id)

    def run(self, pod: str, script: str, **config: Any) -> str:
        container = self.create(pod, script, **config)
        self.runtime.StartContainer(api.StartContainerRequest(container_id=container))
        return container

    def status(self, container: str) -> Any:
        return self.runtime.ContainerStatus(api.ContainerStatusRequest(container_id=container)).status

    def ended(self, container: str) -> Any:
        wait_for("the end", lambda: self.status(container).state == api.CONTAINER_EXITED, 20)
        return self.status(container)

    def exec(self, container: str, *command: str, timeout: int = 10) -> Any:
        return self.runtime.ExecSync(api.ExecSyncRequest(container_id=container, cmd=command, timeout=timeout))

    def contents(self, log: str = "c.log") -> list[str]:
        return [line.split(" ", 3)[3] for line in (self.logs / log).read_text().splitlines()]
