"""RunPodSandboxRequest to SandboxSpec. Pure but for the new id."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Sequence
from typing import Any

from cri.api.v1 import api_pb2 as api
from cri.translate import names
from cri.translate.identity import digest
from runtime_core.errors import InvalidArgument, NotFound
from runtime_core.sandbox.records import SandboxSpec

Mapping = tuple[int, int, int]
_OPTIONS = "config.linux.security_context.namespace_options"
_IDS = 2**32 - 1  # (uid_t) -1 is none
_PID_MODES = {api.POD: "pod", api.CONTAINER: "container", api.NODE: "node"}
_SYSCTL = re.compile(r"[a-z0-9]([-_a-z0-9]*[a-z0-9])?([./][a-z0-9]([-_a-z0-9*]*[a-z0-9*])?)*")
#: one line, for a file; "+" and "=" would be another sysctl to other programs (CVE-2022-0811)
_SYSCTL_VALUE = re.compile(r"[^+=\x00-\x08\x0a-\x1f\x7f]*")
_IPC_SYSCTLS = ("kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem")
_IPC_PREFIXES = ("kernel.shm", "fs.mqueue.")
_PROTOCOLS = {api.TCP: "tcp", api.UDP: "udp", api.SCTP: "sctp"}
_LONGEST_HOSTNAME = 63
_HIGHEST_PORT = 65535
#: where the hierarchies are mounted, and the names of pod and container
_CGROUP_ROOM = 256
#: what containers expect without privileges, as other runtimes set it
_DEFAULT_SYSCTLS = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}


def sandbox_spec(request: api.RunPodSandboxRequest, handlers: Collection[str], default_parent: str) -> SandboxSpec:
    """Raises InvalidArgument (NotFound for an unknown handler) naming the field."""
    config = request.config
    if request.runtime_handler and request.runtime_handler not in handlers:
        raise NotFound(f"runtime_handler: {request.runtime_handler!r} is not configured")
    metadata = _metadata(config.metadata)
    names.check_total_size("config", config.labels, config.annotations)
    security = config.linux.security_context
    options = security.namespace_options
    own_network = options.network != api.NODE
    own_ipc = options.ipc != api.NODE
    for name, mode in (("network", options.network), ("ipc", options.ipc)):
        if mode not in (api.POD, api.NODE):
            raise InvalidArgument(f"{_OPTIONS}.{name}: it is the pod's or the node's")
    if options.pid not in _PID_MODES:
        raise InvalidArgument("config.linux.security_context.namespace_options.pid: a pod cannot target a container")
    uid_mappings, gid_mappings = _user_namespace(options)
    parent = config.linux.cgroup_parent or default_parent
    return SandboxSpec(
        id=names.new_id(),
        name=names.sandbox_name(metadata),
        metadata=metadata,
        labels=dict(config.labels),
        annotations=dict(config.annotations),
        hostname=_hostname(config.hostname),
        log_directory=names.check_absolute_path(config.log_directory, "config.log_directory") if config.log_directory else "",
        dns=_dns(config.dns_config),
        port_mappings=_ports(config.port_mappings),
        handler=request.runtime_handler,
        cgroup_parent=names.check_absolute_path(parent, "config.linux.cgroup_parent", room=_CGROUP_ROOM).rstrip("/"),
        own_network=own_network,
        own_ipc=own_ipc,
        pid_mode=_PID_MODES[options.pid],
        sysctls=_sysctls(dict(config.linux.sysctls), own_network=own_network, own_ipc=own_ipc),
        privileged=security.privileged,
        uid_mappings=uid_mappings,
        gid_mappings=gid_mappings,
        request=digest(request),
    )


def _user_namespace(options: api.NamespaceOption) -> tuple[list[Mapping], list[Mapping]]:
    """(uid, gid) mappings of a pod with a user namespace of its own; two empty lists without."""
    wanted, field = options.userns_options, f"{_OPTIONS}.userns_options"
    if not options.HasField("userns_options") or wanted.mode == api.NODE:
        if wanted.uids or wanted.gids:
            raise InvalidArgument(f"{field}: mappings need the mode POD")
        return [], []
    if wanted.mode != api.POD:
        raise InvalidArgument(f"{field}.mode: a user namespace is the pod's or the node's")
    if api.NODE in (options.pid, options.ipc):
        raise InvalidArgument(f"{field}: a pod with a user namespace needs PID and IPC namespaces of its own")
    uids, gids = _mappings(wanted.uids, f"{field}.uids"), _mappings(wanted.gids, f"{field}.gids")
    if uids != gids:
        raise InvalidArgument(f"{field}.gids: {gids} differs from uids, {uids}")
    return uids, gids


def _mappings(wanted: Sequence[api.IDMapping], field: str) -> list[Mapping]:
    if len(wanted) != 1:
        raise InvalidArgument(f"{field}: {len(wanted)} mappings, exactly one is supported")
    mapping = (wanted[0].container_id, wanted[0].host_id, wanted[0].length)
    if mapping[0] != 0 or mapping[2] == 0:
        raise InvalidArgument(f"{field}: {mapping} must begin with container_id 0 and have a length")
    if mapping[1] + mapping[2] > _IDS:
        raise InvalidArgument(f"{field}: {mapping} goes past the highest id")
    return [mapping]


def _metadata(metadata: api.PodSandboxMetadata) -> dict[str, Any]:
    return {
        "name": names.check_required(metadata.name, "config.metadata.name"),
        "uid": names.check_required(metadata.uid, "config.metadata.uid"),
        "namespace": names.check_required(metadata.namespace, "config.metadata.namespace"),
        "attempt": metadata.attempt,
    }


def _hostname(hostname: str) -> str:
    if len(hostname.encode()) > _LONGEST_HOSTNAME + 1:
        raise InvalidArgument(f"config.hostname: {hostname!r} is longer than {_LONGEST_HOSTNAME + 1} bytes")
    return hostname


def _dns(dns: api.DNSConfig) -> dict[str, list[str]]:
    found = {"servers": list(dns.servers), "searches": list(dns.searches), "options": list(dns.options)}
    return {key: values for key, values in found.items() if values}


def _ports(mappings: Sequence[api.PortMapping]) -> list[dict[str, Any]]:
    """Those with a port of the node: the kubelet also tells ports that are only documented."""
    found = [_port(mapping, f"config.port_mappings[{number}]") for number, mapping in enumerate(mappings)]
    return [port for port in found if port["hostPort"]]


def _port(mapping: api.PortMapping, field: str) -> dict[str, Any]:
    for name, port in (("container_port", mapping.container_port), ("host_port", mapping.host_port)):
        if not 0 <= port <= _HIGHEST_PORT:
            raise InvalidArgument(f"{field}.{name}: {port} is not a port")
    if mapping.host_ip and not _is_address(mapping.host_ip):
        raise InvalidArgument(f"{field}.host_ip: {mapping.host_ip!r} is not an address")
    return {
        "hostPort": mapping.host_port,
        "containerPort": mapping.container_port,
        "protocol": _PROTOCOLS.get(mapping.protocol, "tcp"),
        "hostIP": mapping.host_ip,
    }


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _sysctls(wanted: dict[str, str], *, own_network: bool, own_ipc: bool) -> dict[str, str]:
    """Only namespaced sysctls, and only in a namespace of the pod's own (CVE-2022-0811, CVE-2022-0532)."""
    for key, value in wanted.items():
        field = f"config.linux.sysctls[{key!r}]"
        if not _SYSCTL.fullmatch(key) or not _SYSCTL_VALUE.fullmatch(value):
            raise InvalidArgument(f"{field}: {value!r} is not a sysctl and its value")
        dotted = key.replace("/", ".")
        if dotted.startswith("net."):
            if not own_network:
                raise InvalidArgument(f"{field}: the pod uses the node's network namespace")
        elif dotted in _IPC_SYSCTLS or dotted.startswith(_IPC_PREFIXES):
            if not own_ipc:
                raise InvalidArgument(f"{field}: the pod uses the node's IPC namespace")
        else:
            raise InvalidArgument(f"{field}: this sysctl is not namespaced")
    defaults = _DEFAULT_SYSCTLS if own_network else {}
    return {**defaults, **wanted}
