"""RunPodSandboxRequest: what is asked for, and every refusal by its field."""

from __future__ import annotations

from typing import Any

import pytest

from cri.api.v1 import api_pb2 as api
from cri.translate.sandbox import sandbox_spec
from runtime_core.errors import InvalidArgument, NotFound, ResourceExhausted, TrivetError
from runtime_core.sandbox.records import SandboxSpec


def _spec(*, handler: str = "", **changes: Any) -> SandboxSpec:
    config: dict[str, Any] = {"metadata": api.PodSandboxMetadata(name="p", uid="u", namespace="n", attempt=2)}
    request = api.RunPodSandboxRequest(config=api.PodSandboxConfig(**(config | changes)), runtime_handler=handler)
    return sandbox_spec(request, ["", "trivet"], "/trivet")


def _linux(**options: Any) -> api.LinuxPodSandboxConfig:
    return api.LinuxPodSandboxConfig(**options)


def _namespaces(**options: Any) -> api.LinuxSandboxSecurityContext:
    return api.LinuxSandboxSecurityContext(namespace_options=api.NamespaceOption(**options))


def test_a_plain_pod_has_everything_of_its_own() -> None:
    """Name from the metadata, default parent, own network and IPC."""
    spec = _spec(hostname="box")
    assert spec.name == "p_n_u_2"
    assert (spec.cgroup_parent, spec.own_network, spec.own_ipc) == ("/trivet", True, True)
    assert len(spec.id) == 64


@pytest.mark.parametrize(
    ("changes", "kind", "field"),
    [
        ({"metadata": api.PodSandboxMetadata(name="p", uid="u")}, InvalidArgument, "metadata.namespace"),
        ({"handler": "nope"}, NotFound, "runtime_handler"),
        ({"log_directory": "relative"}, InvalidArgument, "config.log_directory"),
        ({"log_directory": "/var/../etc"}, InvalidArgument, "config.log_directory"),
        ({"hostname": "h" * 65}, InvalidArgument, "config.hostname"),
        ({"annotations": {"a": "x" * 20_000_000}}, ResourceExhausted, "annotations"),
        ({"port_mappings": [api.PortMapping(host_port=80, host_ip="hostile")]}, InvalidArgument, r"port_mappings\[0\].host_ip"),
        ({"linux": _linux(cgroup_parent="/" + "a" * 256)}, InvalidArgument, "cgroup_parent"),
        ({"log_directory": "/a" * 2500}, InvalidArgument, "log_directory"),
        ({"linux": _linux(security_context=_namespaces(network=api.TARGET))}, InvalidArgument, "namespace_options.network"),
        ({"linux": _linux(security_context=_namespaces(ipc=api.CONTAINER))}, InvalidArgument, "namespace_options.ipc"),
        ({"linux": _linux(sysctls={"net.ipv4.tcp_rmem": "1\r2"})}, InvalidArgument, "sysctls"),
        ({"port_mappings": [api.PortMapping(host_port=70000)]}, InvalidArgument, r"port_mappings\[0\].host_port"),
        ({"linux": _linux(cgroup_parent="/a/../../b")}, InvalidArgument, "cgroup_parent"),
        ({"linux": _linux(sysctls={"kernel.core_pattern": "|/x"})}, InvalidArgument, "not namespaced"),
        ({"linux": _linux(sysctls={"net.ipv4.tcp_syncookies": "1+kernel.core_pattern=x"})}, InvalidArgument, "sysctls"),
        (
            {"linux": _linux(sysctls={"net.core.somaxconn": "1"}, security_context=_namespaces(network=api.NODE))},
            InvalidArgument,
            "node's network",
        ),
        (
            {"linux": _linux(sysctls={"kernel.shmmax": "1"}, security_context=_namespaces(ipc=api.NODE))},
            InvalidArgument,
            "node's IPC",
        ),
        ({"linux": _linux(security_context=_namespaces(pid=api.TARGET))}, InvalidArgument, "namespace_options.pid"),
    ],
)
def test_what_cannot_be_is_refused_by_its_field(changes: dict[str, Any], kind: type[TrivetError], field: str) -> None:
    """The right kind, and a message that names where it is wrong."""
    with pytest.raises(kind, match=field):
        _spec(**changes)


def test_only_ports_of_the_node_are_mapped() -> None:
    """A kubelet tells plain container ports too, with host port 0."""
    ports = [api.PortMapping(container_port=80), api.PortMapping(container_port=81, host_port=8081, protocol=api.UDP)]
    spec = _spec(port_mappings=ports)
    assert spec.port_mappings == [{"hostPort": 8081, "containerPort": 81, "protocol": "udp", "hostIP": ""}]


def test_a_sysctl_of_several_numbers_may_have_tabs() -> None:
    """As the kernel itself writes them."""
    assert (
        _spec(linux=_linux(sysctls={"net.ipv4.tcp_rmem": "4096\t131072\t6291456"})).sysctls["net.ipv4.tcp_rmem"].count("\t") == 2
    )


def test_the_same_request_is_known_and_another_is_not() -> None:
    """Whatever the order of its maps."""
    one, same = _spec(labels={"a": "1", "b": "2"}), _spec(labels={"b": "2", "a": "1"})
    assert one.request == same.request != _spec(labels={"a": "1"}).request
