"""Whatever a client sends wrong has its code and its field, and leaves nothing behind."""

from __future__ import annotations

import os
from typing import Any

import grpc
import pytest

from cri.api.v1 import api_pb2 as api
from e2e.wait import wait_for
from tests.support.cri_client import Client

_META = api.PodSandboxMetadata(name="bad", uid="u", namespace="n")


def _pod(**config: Any) -> Any:
    return api.RunPodSandboxRequest(config=api.PodSandboxConfig(**{"metadata": _META, **config}))


def _linux(**linux: Any) -> Any:
    return _pod(linux=api.LinuxPodSandboxConfig(**linux))


@pytest.mark.parametrize(
    ("request_", "code", "field"),
    [
        (api.RunPodSandboxRequest(), "INVALID_ARGUMENT", "config.metadata.name"),
        (_pod(metadata=api.PodSandboxMetadata(name="x", namespace="n")), "INVALID_ARGUMENT", "config.metadata.uid"),
        (_pod(metadata=api.PodSandboxMetadata(name="x", uid="u")), "INVALID_ARGUMENT", "config.metadata.namespace"),
        (_pod(metadata=api.PodSandboxMetadata(name="a\0b", uid="u", namespace="n")), "INVALID_ARGUMENT", "config.metadata.name"),
        (_pod(hostname="h" * 300), "INVALID_ARGUMENT", "config.hostname"),
        (_pod(hostname="a\nb"), "INVALID_ARGUMENT", "config.hostname"),
        (_pod(log_directory="logs"), "INVALID_ARGUMENT", "config.log_directory"),
        (_pod(log_directory="/var/log/../../etc"), "INVALID_ARGUMENT", "config.log_directory"),
        (_pod(annotations={"big": "x" * (20 << 20)}), "RESOURCE_EXHAUSTED", ""),
        (_pod(annotations={"big": "x" * (2 << 20)}), "RESOURCE_EXHAUSTED", "config.annotations"),
        (_pod(dns_config=api.DNSConfig(servers=["10.0.0.1\nnameserver 6.6.6.6"])), "INVALID_ARGUMENT", "config.dns_config"),
        (_pod(log_directory="/" + "a" * 300), "INVALID_ARGUMENT", "config.log_directory"),
        (_linux(cgroup_parent="/" + "a" * 300), "INVALID_ARGUMENT", "config.linux.cgroup_parent"),
        (
            _linux(resources=api.LinuxContainerResources(cpuset_cpus="0\0")),
            "INVALID_ARGUMENT",
            "config.linux.resources.cpuset_cpus",
        ),
        (_linux(sysctls={"net.ipv4.ip_forward": "1\r"}), "INVALID_ARGUMENT", "net.ipv4.ip_forward"),
        (_pod(port_mappings=[api.PortMapping(container_port=70000)]), "INVALID_ARGUMENT", "config.port_mappings[0]"),
        (_pod(port_mappings=[api.PortMapping(host_port=-1, container_port=1)]), "INVALID_ARGUMENT", "config.port_mappings[0]"),
        (_linux(cgroup_parent="kube"), "INVALID_ARGUMENT", "config.linux.cgroup_parent"),
        (_linux(cgroup_parent="/kube/../.."), "INVALID_ARGUMENT", "config.linux.cgroup_parent"),
        (_linux(sysctls={"kernel.core_pattern": "|/x"}), "INVALID_ARGUMENT", "kernel.core_pattern"),
        (_linux(sysctls={"kernel/../net/x": "1"}), "INVALID_ARGUMENT", "config.linux.sysctls"),
        (_linux(sysctls={"net.ipv4.ip_forward": "1\n2"}), "INVALID_ARGUMENT", "net.ipv4.ip_forward"),
        (_linux(sysctls={"net.ipv4.no_such": "1"}), "INVALID_ARGUMENT", "net.ipv4.no_such"),
        (
            _linux(
                sysctls={"net.ipv4.ip_forward": "1"},
                security_context=api.LinuxSandboxSecurityContext(namespace_options=api.NamespaceOption(network=api.NODE)),
            ),
            "INVALID_ARGUMENT",
            "net.ipv4.ip_forward",
        ),
        (
            _linux(security_context=api.LinuxSandboxSecurityContext(namespace_options=api.NamespaceOption(pid=api.TARGET))),
            "INVALID_ARGUMENT",
            "namespace_options.pid",
        ),
        (
            api.RunPodSandboxRequest(config=api.PodSandboxConfig(metadata=_META), runtime_handler="kata"),
            "NOT_FOUND",
            "runtime_handler",
        ),
    ],
)
def test_a_refused_pod_leaves_nothing(client: Client, request_: Any, code: str, field: str) -> None:
    """No record, no directory, no network namespace."""
    with pytest.raises(grpc.RpcError) as refused:
        client.runtime.RunPodSandbox(request_)
    assert (refused.value.code().name, field in refused.value.details()) == (code, True), refused.value.details()
    assert not client.runtime.ListPodSandbox(api.ListPodSandboxRequest()).items
    for part in ("pods", "netns"):
        directory = client.node.directory / "state" / part
        assert not directory.exists() or os.listdir(directory) == []


def _security(**context: Any) -> dict[str, Any]:
    return {"security": api.LinuxContainerSecurityContext(**context)}


def _resources(**resources: Any) -> dict[str, Any]:
    return {"resources": api.LinuxContainerResources(**resources)}


def _mount(**mount: Any) -> dict[str, Any]:
    return {"mounts": [api.Mount(**mount)]}


_LOCALHOST = api.SecurityProfile.Localhost
_PROFILE = api.SecurityProfile(profile_type=_LOCALHOST, localhost_ref="../x")


@pytest.mark.parametrize(
    ("config", "code", "field"),
    [
        ({"image": ""}, "INVALID_ARGUMENT", "config.image.image"),
        ({"image": "a//b:c"}, "INVALID_ARGUMENT", "config.image.image"),
        ({"command": []}, "INVALID_ARGUMENT", "config.command"),
        ({"command": ["a\0b"]}, "INVALID_ARGUMENT", "config.command[0]"),
        ({"log_path": "x\0y"}, "INVALID_ARGUMENT", "config.log_path"),
        ({"log_path": "a" * 256}, "INVALID_ARGUMENT", "config.log_path"),
        ({"log_path": "."}, "INVALID_ARGUMENT", "config.log_path"),
        ({"log_path": "directory/../x"}, "INVALID_ARGUMENT", "config.log_path"),
        ({"stop_signal": 999}, "INVALID_ARGUMENT", "config.stop_signal"),
        ({"labels": {"a\0": "b"}}, "INVALID_ARGUMENT", "config.labels"),
        ({"annotations": {"a": "b\0"}}, "INVALID_ARGUMENT", "config.annotations['a']"),
        ({"args": ["a\nb", "c\0d"]}, "INVALID_ARGUMENT", "config.args[1]"),
        ({"envs": [api.KeyValue(key="A", value=b"a\0b")]}, "INVALID_ARGUMENT", "config.envs[0].value"),
        ({"envs": [api.KeyValue(key="A\n", value=b"x")]}, "INVALID_ARGUMENT", "config.envs[0].key"),
        ({"devices": [api.Device(container_path="/dev/x", host_path="/" + "a" * 300)]}, "INVALID_ARGUMENT", "config.devices"),
        (_mount(container_path="/x", host_path="/" + "a" * 300), "INVALID_ARGUMENT", "config.mounts[0].host_path"),
        (_mount(container_path="/x", host_path="/etc/passwd/x"), "INVALID_ARGUMENT", "config.mounts[0].host_path"),
        (_resources(memory_limit_in_bytes=4096), "INVALID_ARGUMENT", "memory.limit: 4096"),
        (
            _security(seccomp=api.SecurityProfile(profile_type=_LOCALHOST, localhost_ref="/dev/zero")),
            "INVALID_ARGUMENT",
            "/dev/zero",
        ),
        (_security(run_as_username="9" * 5000), "INVALID_ARGUMENT", "run_as_username"),
        ({"working_dir": "relative"}, "INVALID_ARGUMENT", "config.working_dir"),
        ({"working_dir": "/a/../b"}, "INVALID_ARGUMENT", "config.working_dir"),
        ({"envs": [api.KeyValue(key="A=B", value=b"x")]}, "INVALID_ARGUMENT", "config.envs[0].key"),
        ({"envs": [api.KeyValue(key="", value=b"x")]}, "INVALID_ARGUMENT", "config.envs[0].key"),
        ({"stdin_once": True}, "INVALID_ARGUMENT", "config.stdin_once"),
        (_mount(container_path="", host_path="/tmp"), "INVALID_ARGUMENT", "config.mounts[0].container_path"),
        (_mount(container_path="/x", host_path="tmp"), "INVALID_ARGUMENT", "config.mounts[0].host_path"),
        (_mount(container_path="/x", host_path="/tmp", propagation=9), "INVALID_ARGUMENT", "config.mounts[0].propagation"),
        (_mount(container_path="/x", host_path="/tmp", recursive_read_only=True), "INVALID_ARGUMENT", "recursive_read_only"),
        (_mount(container_path="/", host_path="/tmp"), "INVALID_ARGUMENT", "container_path"),
        (_resources(memory_limit_in_bytes=-5), "INVALID_ARGUMENT", "memory_limit_in_bytes"),
        (
            _resources(memory_limit_in_bytes=1 << 30, memory_swap_limit_in_bytes=1),
            "INVALID_ARGUMENT",
            "memory_swap_limit_in_bytes",
        ),
        (_resources(cpu_shares=-5), "INVALID_ARGUMENT", "cpu_shares"),
        (_resources(cpu_quota=-5), "INVALID_ARGUMENT", "cpu_quota"),
        (_resources(cpu_period=7), "INVALID_ARGUMENT", "cpu"),
        (_resources(oom_score_adj=2000), "INVALID_ARGUMENT", "oom_score_adj"),
        (_resources(cpuset_cpus="0-9999"), "INVALID_ARGUMENT", "cpuset"),
        (_resources(cpuset_cpus="zero"), "INVALID_ARGUMENT", "cpuset"),
        (_resources(unified={"memory.high": "1"}), "INVALID_ARGUMENT", "unified"),
        (_resources(hugepage_limits=[api.HugepageLimit(page_size="9XB", limit=1)]), "INVALID_ARGUMENT", "hugepage"),
        (_security(run_as_user=api.Int64Value(value=-1)), "INVALID_ARGUMENT", "run_as_user"),
        (_security(run_as_user=api.Int64Value(value=1 << 40)), "INVALID_ARGUMENT", "run_as_user"),
        (_security(run_as_username="nobody-here"), "INVALID_ARGUMENT", "nobody-here"),
        (_security(run_as_group=api.Int64Value(value=5)), "INVALID_ARGUMENT", "run_as_group"),
        (_security(supplemental_groups=[-7]), "INVALID_ARGUMENT", "supplemental_groups"),
        (_security(capabilities=api.Capability(add_capabilities=["FLY"])), "INVALID_ARGUMENT", "add_capabilities"),
        (_security(masked_paths=["proc"]), "INVALID_ARGUMENT", "masked_paths"),
        (_security(seccomp=_PROFILE), "INVALID_ARGUMENT", "localhost_ref"),
        (_security(namespace_options=api.NamespaceOption(pid=api.TARGET, target_id="nope")), "NOT_FOUND", "nope"),
    ],
)
def test_a_refused_container_leaves_nothing(client: Client, pod: str, config: Any, code: str, field: str) -> None:
    """No record, no snapshot; and the pod goes on."""
    with pytest.raises(grpc.RpcError) as refused:
        client.create(pod, "true", **config)
    assert (refused.value.code().name, field in refused.value.details()) == (code, True), refused.value.details()
    assert list((client.node.directory / "root/overlayfs/snapshots").iterdir()) == []
    assert not client.runtime.ListContainers(api.ListContainersRequest()).containers
    assert client.ended(client.run(pod, "exit 0")).exit_code == 0
    for container in client.runtime.ListContainers(api.ListContainersRequest()).containers:
        client.runtime.RemoveContainer(api.RemoveContainerRequest(container_id=container.id))


@pytest.mark.parametrize(
    ("call", "request_", "code"),
    [
        ("PodSandboxStatus", api.PodSandboxStatusRequest(pod_sandbox_id="nope"), "NOT_FOUND"),
        ("ContainerStatus", api.ContainerStatusRequest(container_id="nope"), "NOT_FOUND"),
        ("ContainerStats", api.ContainerStatsRequest(container_id="nope"), "NOT_FOUND"),
        ("PodSandboxStats", api.PodSandboxStatsRequest(pod_sandbox_id="nope"), "NOT_FOUND"),
        ("StartContainer", api.StartContainerRequest(container_id="nope"), "NOT_FOUND"),
        ("ExecSync", api.ExecSyncRequest(container_id="nope", cmd=["x"]), "NOT_FOUND"),
        ("ReopenContainerLog", api.ReopenContainerLogRequest(container_id="nope"), "NOT_FOUND"),
        ("UpdateContainerResources", api.UpdateContainerResourcesRequest(container_id="nope"), "NOT_FOUND"),
        ("CreateContainer", api.CreateContainerRequest(pod_sandbox_id="nope"), "NOT_FOUND"),
        ("ContainerStatus", api.ContainerStatusRequest(), "NOT_FOUND"),
    ],
)
def test_what_is_not_there_is_not_found(client: Client, call: str, request_: Any, code: str) -> None:
    """By its id."""
    with pytest.raises(grpc.RpcError) as refused:
        getattr(client.runtime, call)(request_)
    assert refused.value.code().name == code


@pytest.mark.parametrize("timeout", [2**31, 9223372037, 2**63 - 1])
def test_a_timeout_beyond_all_clocks_is_a_long_one(client: Client, pod: str, timeout: int) -> None:
    """ExecSync ends with its command; StopContainer waits, and one without patience does not wait with it."""
    container = client.run(pod, "trap '' TERM; echo ready; sleep 1000", name=f"t{timeout}")
    wait_for("the trap", lambda: (client.logs / "c.log").exists() and "ready" in client.contents())
    assert client.exec(container, "echo", "x", timeout=timeout).stdout == b"x\n"
    with pytest.raises(grpc.RpcError) as refused:
        client.runtime.StopContainer(api.StopContainerRequest(container_id=container, timeout=timeout), timeout=0.5)
    assert refused.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    client.runtime.StopContainer(api.StopContainerRequest(container_id=container, timeout=1), timeout=20)
    assert client.status(container).exit_code == 137


def test_a_request_too_large_for_the_monitor_is_refused(client: Client, pod: str) -> None:
    """JSON makes six bytes of one: what gRPC lets in may be more than the monitor takes."""
    with pytest.raises(grpc.RpcError) as refused:
        client.create(pod, "true", args=["\x01" * (8 << 20)])
    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert client.ended(client.run(pod, "exit 0")).exit_code == 0
