"""Records to the messages that Status and List answer with. Pure."""

from __future__ import annotations

from typing import Any

from cri.api.v1 import api_pb2 as api
from cri.translate import resources
from cri.translate.signals import cri_signal
from runtime_core.sandbox.records import ContainerRecord, SandboxRecord, SandboxSpec


def sandbox_metadata(record: SandboxRecord) -> api.PodSandboxMetadata:
    """The pod's name, uid, namespace and attempt."""
    return api.PodSandboxMetadata(**record.spec.metadata)


def sandbox_state(record: SandboxRecord) -> api.PodSandboxState:
    """SANDBOX_READY or SANDBOX_NOTREADY."""
    return api.SANDBOX_READY if record.is_ready else api.SANDBOX_NOTREADY


def sandbox_item(record: SandboxRecord) -> api.PodSandbox:
    """The pod as ListPodSandbox has it."""
    return api.PodSandbox(
        id=record.spec.id,
        metadata=sandbox_metadata(record),
        state=sandbox_state(record),
        created_at=record.created_at,
        labels=record.spec.labels,
        annotations=record.spec.annotations,
        runtime_handler=record.spec.handler,
    )


def sandbox_status(record: SandboxRecord) -> api.PodSandboxStatus:
    """The pod as PodSandboxStatus has it."""
    spec = record.spec
    addresses = record.addresses
    return api.PodSandboxStatus(
        id=spec.id,
        metadata=sandbox_metadata(record),
        state=sandbox_state(record),
        created_at=record.created_at,
        network=api.PodSandboxNetworkStatus(
            ip=addresses[0] if addresses else "",
            additional_ips=[api.PodIP(ip=address) for address in addresses[1:]],
        ),
        linux=api.LinuxPodSandboxStatus(
            namespaces=api.Namespace(
                options=api.NamespaceOption(
                    network=api.POD if spec.own_network else api.NODE,
                    ipc=api.POD if spec.own_ipc else api.NODE,
                    pid={"pod": api.POD, "container": api.CONTAINER, "node": api.NODE}[spec.pid_mode],
                    userns_options=_user_namespace(spec),
                )
            )
        ),
        labels=spec.labels,
        annotations=spec.annotations,
        runtime_handler=spec.handler,
    )


def _user_namespace(spec: SandboxSpec) -> api.UserNamespace | None:
    if not spec.uid_mappings:
        return None
    uids, gids = (
        [api.IDMapping(container_id=container, host_id=host, length=size) for container, host, size in mappings]
        for mappings in (spec.uid_mappings, spec.gid_mappings)
    )
    return api.UserNamespace(mode=api.POD, uids=uids, gids=gids)


def container_item(record: ContainerRecord) -> api.Container:
    """The container as ListContainers has it."""
    return api.Container(
        id=record.id,
        pod_sandbox_id=record.sandbox_id,
        metadata=api.ContainerMetadata(**record.metadata),
        image=api.ImageSpec(image=record.image, user_specified_image=record.image),
        image_ref=record.image_ref,
        image_id=record.image_ref,
        state=_state(record),
        created_at=record.created_at,
        labels=record.labels,
        annotations=record.annotations,
    )


def container_status(record: ContainerRecord) -> api.ContainerStatus:
    """The container as ContainerStatus has it."""
    user = record.process["user"]
    return api.ContainerStatus(
        id=record.id,
        metadata=api.ContainerMetadata(**record.metadata),
        state=_state(record),
        created_at=record.created_at,
        started_at=record.started_at,
        finished_at=record.finished_at,
        exit_code=record.exit_code,
        image=api.ImageSpec(image=record.image, user_specified_image=record.image),
        image_ref=record.image_ref,
        image_id=record.image_ref,
        reason=record.reason,
        message=record.message,
        labels=record.labels,
        annotations=record.annotations,
        mounts=[_mount(mount) for mount in record.mounts],
        log_path=record.log_path,
        stop_signal=cri_signal(record.stop_signal),
        resources=resources.cri_resources(record.resources, record.process.get("oomScoreAdj") or 0),
        user=api.ContainerUser(
            linux=api.LinuxContainerUser(uid=user["uid"], gid=user["gid"], supplemental_groups=user["additionalGids"])
        ),
    )


def _mount(mount: dict[str, Any]) -> api.Mount:
    return api.Mount(**mount)


def _state(record: ContainerRecord) -> api.ContainerState:
    states = (api.CONTAINER_CREATED, api.CONTAINER_RUNNING, api.CONTAINER_EXITED, api.CONTAINER_UNKNOWN)
    return states[record.state]
