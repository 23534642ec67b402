"""Which function serves which RPC. What is not here answers UNIMPLEMENTED by its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message_factory import GetMessageClass

from cri.api.v1 import api_pb2 as api
from cri.container import create, events, exec_sync, reopen_log, start, update_resources
from cri.container import list as container_list
from cri.container import remove as container_remove
from cri.container import stats as container_stats
from cri.container import status as container_status
from cri.container import stop as container_stop
from cri.image import fs_info, pull
from cri.image import list as image_list
from cri.image import remove as image_remove
from cri.image import status as image_status
from cri.runtime import config, version
from cri.runtime import status as runtime_status
from cri.sandbox import list as sandbox_list
from cri.sandbox import remove as sandbox_remove
from cri.sandbox import run
from cri.sandbox import stats as sandbox_stats
from cri.sandbox import status as sandbox_status
from cri.sandbox import stop as sandbox_stop
from cri.service import Service
from cri.streaming import attach, port_forward
from cri.streaming import exec as streaming_exec
from runtime_core.serving.rpc_handler import RpcHandler

RUNTIME: dict[str, Callable[..., Any]] = {
    "Version": version.version,
    "Status": runtime_status.status,
    "RuntimeConfig": config.runtime_config,
    "UpdateRuntimeConfig": config.update_runtime_config,
    "RunPodSandbox": run.run_pod_sandbox,
    "StopPodSandbox": sandbox_stop.stop_pod_sandbox,
    "RemovePodSandbox": sandbox_remove.remove_pod_sandbox,
    "PodSandboxStatus": sandbox_status.pod_sandbox_status,
    "ListPodSandbox": sandbox_list.list_pod_sandbox,
    "StreamPodSandboxes": sandbox_list.stream_pod_sandboxes,
    "PodSandboxStats": sandbox_stats.pod_sandbox_stats,
    "ListPodSandboxStats": sandbox_stats.list_pod_sandbox_stats,
    "StreamPodSandboxStats": sandbox_stats.stream_pod_sandbox_stats,
    "CreateContainer": create.create_container,
    "StartContainer": start.start_container,
    "StopContainer": container_stop.stop_container,
    "RemoveContainer": container_remove.remove_container,
    "ListContainers": container_list.list_containers,
    "StreamContainers": container_list.stream_containers,
    "ContainerStatus": container_status.container_status,
    "UpdateContainerResources": update_resources.update_container_resources,
    "ReopenContainerLog": reopen_log.reopen_container_log,
    "ExecSync": exec_sync.exec_sync,
    "GetContainerEvents": events.get_container_events,
    "Exec": streaming_exec.open_exec,
    "Attach": attach.open_attach,
    "PortForward": port_forward.open_port_forward,
    "ContainerStats": container_stats.container_stats,
    "ListContainerStats": container_stats.list_container_stats,
    "StreamContainerStats": container_stats.stream_container_stats,
}
IMAGE: dict[str, Callable[..., Any]] = {
    "ListImages": image_list.list_images,
    "StreamImages": image_list.stream_images,
    "ImageStatus": image_status.image_status,
    "PullImage": pull.pull_image,
    "RemoveImage": image_remove.remove_image,
    "ImageFsInfo": fs_info.image_fs_info,
}
#: fields that may hold control characters: scripts, JSON with newlines, lines for a file of cgroup v2
FREE_TEXT = frozenset(
    ("command", "args", "cmd", "labels", "annotations", "label_selector", "unified", "sysctls", "auth", "password")
)


def rpc_handlers(service: Service) -> list[RpcHandler]:
    """The two services of CRI v1."""
    services = api.DESCRIPTOR.services_by_name
    return [
        RpcHandler(services["RuntimeService"], GetMessageClass, RUNTIME, service, service.log, free_text=FREE_TEXT),
        RpcHandler(services["ImageService"], GetMessageClass, IMAGE, service, service.log, free_text=FREE_TEXT),
    ]
