"""CreateContainer: image, snapshot, spec, and everything but the exec of the program."""

from __future__ import annotations

import json
import os
import stat
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cri.api.v1 import api_pb2 as api
from cri.container import image_files
from cri.service import Service
from cri.translate import names, security
from cri.translate.container import Device, Inputs, container_spec
from cri.translate.identity import container_digest
from cri.translate.mounts import image_volumes
from cri.translate.signals import stop_signal
from runtime_core.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from runtime_core.images.store import Image
from runtime_core.interfaces.runtime import ContainerSpec, RootMount
from runtime_core.kernel import failpoint, paths
from runtime_core.sandbox.node import Node
from runtime_core.sandbox.records import ContainerRecord, SandboxRecord, State
from runtime_core.serving.rpc_handler import Call

_MOST_PROFILE = 4 * 1024 * 1024


def create_container(service: Service, request: api.CreateContainerRequest, call: Call) -> api.CreateContainerResponse:
    """Create the container up to the exec of its program; its id."""
    sandbox = service.node.sandbox(request.pod_sandbox_id)
    if not sandbox.is_ready:
        raise FailedPrecondition(f"pod_sandbox_id: pod {sandbox.spec.id} is not ready")
    metadata = {
        "name": names.check_required(request.config.metadata.name, "config.metadata.name"),
        "attempt": request.config.metadata.attempt,
    }
    names.check_total_size("config", request.config.labels, request.config.annotations)
    name = names.container_name(metadata, sandbox.spec.metadata)
    asked = container_digest(request.config)
    container_id = service.operations.run_once(
        f"CreateContainer {sandbox.spec.id} {name} {asked}",
        lambda: _create_once(service, request.config, sandbox, name, metadata, asked),
        call.time_remaining(),
    )
    return api.CreateContainerResponse(container_id=container_id)


def _create_once(
    service: Service, config: api.ContainerConfig, sandbox: SandboxRecord, name: str, metadata: dict[str, Any], asked: str
) -> str:
    """A name with its attempt is one container's until that is removed."""
    with service.node.locks.hold(f"name {sandbox.spec.id} {name}"):
        for present in service.node.containers_of(sandbox.spec.id):
            if present.name == name:
                if present.state == State.CREATED and present.request == asked:
                    return present.id  # the first call's answer was lost on its way
                raise AlreadyExists(
                    f"config.metadata: container {name} exists as {present.id} and is {present.state.name.lower()}"
                )
        return _create(service, config, sandbox, name, metadata, asked)


def _create(
    service: Service, config: api.ContainerConfig, sandbox: SandboxRecord, name: str, metadata: dict[str, Any], asked: str
) -> str:
    node = service.node
    image = node.images.find(names.check_required(config.image.image, "config.image.image"), "config.image.image")
    if image is None:
        raise NotFound(f"config.image.image: {config.image.image!r} is not on this node")
    container_id = names.new_id()
    with ExitStack() as undo:
        owned = json.dumps({"sandbox": sandbox.spec.id, "handler": sandbox.spec.handler})
        destinations = image_volumes(image.config, config)
        kept = [("image-volumes", container_id)] if destinations else []
        node.ledger.guard(undo, container_id, ("snapshot", container_id), *kept, ("container", owned))
        root = node.snapshotter.prepare(container_id, image.chain_ids)
        failpoint.hit("create.snapshot")
        volumes = _volumes(node, container_id, config, image, destinations) if destinations else {}
        spec = container_spec(_inputs(service, container_id, config, sandbox, image, root, volumes))
        record = _record(container_id, name, metadata, config, sandbox, image, spec, asked)
        _check_mounts(config)
        node.expect_exit(container_id)
        undo.callback(node.forget_exit, container_id)
        node.runtime(sandbox.spec.handler).create(
            ContainerSpec(
                id=container_id,
                pod_id=sandbox.spec.id,
                spec=spec,
                root=root,
                log_path=record.log_path,
                stdin=config.stdin,
                stdin_once=config.stdin_once,
                stop_signal=record.stop_signal,
            )
        )
        failpoint.hit("create.created")
        _put_record(node, record)
        undo.pop_all()
    failpoint.hit("create.recorded")
    return container_id


def _put_record(node: Node, record: ContainerRecord) -> None:
    """FailedPrecondition when the pod was stopped meanwhile: who stopped it did not know this container."""
    with node.locks.hold(record.sandbox_id):
        sandbox = node.sandboxes.find(record.sandbox_id)
        if sandbox is None or not sandbox.is_ready:
            raise FailedPrecondition(f"pod_sandbox_id: pod {record.sandbox_id} is not ready any more")
        node.container_created(record)


def _volumes(node: Node, container_id: str, config: api.ContainerConfig, image: Image, destinations: list[str]) -> dict[str, str]:
    """Of the image, made and filled: destination → directory."""
    from runtime_core.sandbox.image_volumes import make

    mounted = [mount.container_path for mount in config.mounts]
    return make(node.directories.image_volumes(container_id), node.snapshotter.view(image.chain_ids), destinations, mounted)


def _inputs(
    service: Service,
    container_id: str,
    config: api.ContainerConfig,
    sandbox: SandboxRecord,
    image: Image,
    root: RootMount,
    volumes: dict[str, str],
) -> Inputs:
    context = config.linux.security_context
    return Inputs(
        id=container_id,
        config=config,
        sandbox=sandbox,
        image=image.config,
        facts=service.facts,
        passwd=image_files.read(root, "etc/passwd"),
        group=image_files.read(root, "etc/group"),
        localhost_profile=_localhost_profile(security.seccomp_kind(context)),
        devices={device.host_path: host_device(device.host_path) for device in config.devices},
        volumes=volumes,
        pid_target=_pid_target(service.node, context.namespace_options, sandbox),
    )


def _localhost_profile(kind: tuple[str, str]) -> dict[str, Any] | None:
    if kind[0] != "localhost":
        return None
    field = "config.linux.security_context.seccomp.localhost_ref"
    try:
        profile = json.loads(_read(kind[1], field))
    except FileNotFoundError:
        raise NotFound(f"{field}: {kind[1]} does not exist") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidArgument(f"{field}: {kind[1]}: {error}") from error
    if not isinstance(profile, dict):
        raise InvalidArgument(f"{field}: {kind[1]} is not a JSON object")
    return profile


def _read(path: str, field: str) -> bytes:
    """A regular file: of a device or a FIFO there might be no end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        return paths.read_bounded(descriptor, _MOST_PROFILE, f"{field}: {path}")
    finally:
        os.close(descriptor)


def host_device(path: str) -> Device:
    """The device node at `path` of the host; InvalidArgument when it is none."""
    names.check_absolute_path(path, "config.devices.host_path")
    try:
        status = os.stat(path)
    except OSError as error:
        raise paths.wrong_path(error, f"config.devices.host_path: {path!r}") from error
    if not (stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)):
        raise InvalidArgument(f"config.devices.host_path: {path} is not a device")
    return Device(
        path=path,
        mode=status.st_mode,
        major=os.major(status.st_rdev),
        minor=os.minor(status.st_rdev),
        uid=status.st_uid,
        gid=status.st_gid,
    )


def _pid_target(node: Node, options: api.NamespaceOption, sandbox: SandboxRecord) -> int:
    if options.pid != api.TARGET:
        return 0
    target = node.container(options.target_id)
    if target.sandbox_id != sandbox.spec.id or target.state != State.RUNNING:
        raise FailedPrecondition("config.linux.security_context.namespace_options.target_id: not a running container of this pod")
    return next(iter(node.cgroups.processes(target.cgroup_path)), 0)


def _record(
    container_id: str,
    name: str,
    metadata: dict[str, Any],
    config: api.ContainerConfig,
    sandbox: SandboxRecord,
    image: Image,
    spec: dict[str, Any],
    asked: str,
) -> ContainerRecord:
    linux = spec["linux"]
    return ContainerRecord(
        id=container_id,
        name=name,
        sandbox_id=sandbox.spec.id,
        metadata=metadata,
        image=config.image.user_specified_image or config.image.image,
        image_ref=image.id,
        labels=dict(config.labels),
        annotations=dict(config.annotations),
        mounts=[
            {
                "container_path": mount.container_path,
                "host_path": mount.host_path,
                "readonly": mount.readonly,
                "selinux_relabel": mount.selinux_relabel,
                "propagation": mount.propagation,
                "recursive_read_only": mount.recursive_read_only,
            }
            for mount in config.mounts
        ],
        log_path=_log_path(config.log_path, sandbox.spec.log_directory),
        cgroup_path=linux["cgroupsPath"],
        stop_signal=stop_signal(config.stop_signal, image.config.get("StopSignal") or ""),
        process=spec["process"],
        resources={key: value for key, value in linux["resources"].items() if key != "devices"},
        created_at=time.time_ns(),
        request=asked,
    )


def _log_path(relative: str, directory: str) -> str:
    if not relative or not directory:
        return ""
    if relative.startswith("/") or ".." in relative.split("/"):
        raise InvalidArgument(f"config.log_path: {relative!r} leaves the pod's log directory")
    path = Path(directory, names.check_length(relative, "config.log_path", room=len(os.fsencode(directory)) + 1))
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise paths.wrong_path(error, "config.log_path") from error
    if path.is_dir():
        raise InvalidArgument(f"config.log_path: {path} is a directory")
    return str(path)


def _check_mounts(config: api.ContainerConfig) -> None:
    for number, mount in enumerate(config.mounts):
        try:
            os.stat(mount.host_path)
        except FileNotFoundError:
            raise NotFound(f"config.mounts[{number}].host_path: {mount.host_path!r} does not exist") from None
        except OSError as error:
            raise paths.wrong_path(error, f"config.mounts[{number}].host_path: {mount.host_path!r}") from error
