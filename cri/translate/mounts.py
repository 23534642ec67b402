"""The mounts of a container: ours, then the caller's, shallow ones first. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

from cri.api.v1 import api_pb2 as api
from cri.translate import names
from runtime_core.errors import InvalidArgument, Unimplemented
from runtime_core.sandbox.records import SandboxRecord

_PROPAGATION = {
    api.PROPAGATION_PRIVATE: "rprivate",
    api.PROPAGATION_HOST_TO_CONTAINER: "rslave",
    api.PROPAGATION_BIDIRECTIONAL: "rshared",
}
_FILES = (("/etc/hosts", "hosts"), ("/etc/hostname", "hostname"), ("/etc/resolv.conf", "resolv.conf"))


def oci_mounts(
    config: api.ContainerConfig, sandbox: SandboxRecord, volumes: Mapping[str, str], *, privileged: bool
) -> list[dict[str, Any]]:
    """Of two mounts on one path the caller's wins, then the image's: `volumes` is destination → directory."""
    asked = [_volume(destination, source, sandbox) for destination, source in volumes.items()]
    asked += [_mount(mount, f"config.mounts[{number}]", sandbox) for number, mount in enumerate(config.mounts)]
    taken = {mount["destination"].rstrip("/") for mount in asked}
    found = [mount for mount in _defaults(sandbox, privileged=privileged) if mount["destination"] not in taken]
    return found + sorted(asked, key=lambda mount: mount["destination"].rstrip("/").count("/"))


def image_volumes(image: Mapping[str, Any], config: api.ContainerConfig) -> list[str]:
    """Where the image wants volumes (`Volumes` of its configuration) and the caller mounts nothing."""
    found = [_volume_path(path) for path in image.get("Volumes") or ()]
    taken = {posixpath.normpath(mount.container_path) for mount in config.mounts}
    return [path for path in dict.fromkeys(found) if path not in taken]


def _volume_path(text: str) -> str:
    path = posixpath.normpath(f"/{text.lstrip('/')}")
    if path == "/":
        raise InvalidArgument(f"the image's Volumes: {text!r} is the root itself")
    if any(character < " " or character == "\x7f" for character in path):
        raise InvalidArgument(f"the image's Volumes: {text!r} contains control characters")
    return names.check_length(path, "the image's Volumes")


def _volume(destination: str, source: str, sandbox: SandboxRecord) -> dict[str, Any]:
    return {**_bind(destination, source, "rprivate", "rw"), **id_mappings(sandbox)}


def _defaults(sandbox: SandboxRecord, *, privileged: bool) -> list[dict[str, Any]]:
    access = "rw" if privileged else "ro"
    shm = f"{sandbox.directory}/shm" if sandbox.spec.own_ipc else "/dev/shm"
    return [
        _fs("/proc", "proc", "nosuid", "noexec", "nodev"),
        _fs("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _fs("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
        _fs("/dev/mqueue", "mqueue", "nosuid", "noexec", "nodev"),
        _fs("/sys", "sysfs", "nosuid", "noexec", "nodev", access),
        _fs("/sys/fs/cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", access),
        _bind("/dev/shm", shm, "rprivate", "nosuid", "noexec", "nodev"),
        *(_bind(path, f"{sandbox.directory}/{name}", "rprivate") for path, name in _FILES),
    ]


def _mount(mount: api.Mount, field: str, sandbox: SandboxRecord) -> dict[str, Any]:
    if mount.HasField("image"):
        raise Unimplemented(f"{field}.image: image volumes are not there yet")
    destination = names.check_absolute_path(mount.container_path, f"{field}.container_path")
    if not destination.strip("/."):
        raise InvalidArgument(f"{field}.container_path: {destination!r} is the root itself")
    source = names.check_absolute_path(mount.host_path, f"{field}.host_path")
    if mount.propagation not in _PROPAGATION:
        raise InvalidArgument(f"{field}.propagation: {mount.propagation} is unknown")
    options = ["rbind", _PROPAGATION[mount.propagation]]
    if mount.recursive_read_only:
        if not mount.readonly or mount.propagation != api.PROPAGATION_PRIVATE:
            raise InvalidArgument(f"{field}.recursive_read_only: needs readonly and private propagation")
        options.append("rro")
    options.append("ro" if mount.readonly else "rw")
    return {"destination": destination, "type": "bind", "source": source, "options": options, **_idmap(mount, field, sandbox)}


def _idmap(mount: api.Mount, field: str, sandbox: SandboxRecord) -> dict[str, Any]:
    """Files with the owners that they have on disk: only as the pod's user namespace maps them."""
    if not mount.uidMappings and not mount.gidMappings:
        return {}
    for name, wanted, has in (
        ("uidMappings", mount.uidMappings, sandbox.spec.uid_mappings),
        ("gidMappings", mount.gidMappings, sandbox.spec.gid_mappings),
    ):
        asked = [(mapping.container_id, mapping.host_id, mapping.length) for mapping in wanted]
        if asked != [tuple(mapping) for mapping in has]:
            raise InvalidArgument(f"{field}.{name}: {asked} is not what the pod's user namespace has, {list(has)}")
    return id_mappings(sandbox)


def id_mappings(sandbox: SandboxRecord) -> dict[str, Any]:
    """OCI uidMappings and gidMappings of the pod's user namespace; {} without."""
    found = {"uidMappings": sandbox.spec.uid_mappings, "gidMappings": sandbox.spec.gid_mappings}
    return {
        key: [{"containerID": container, "hostID": host, "size": size} for container, host, size in mappings]
        for key, mappings in found.items()
        if mappings
    }


def _fs(destination: str, kind: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": kind, "options": list(options)}


def _bind(destination: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": "bind", "source": source, "options": ["rbind", *options]}
