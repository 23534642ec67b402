"""Pods with a user namespace of their own, through gRPC alone."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from cri.api.v1 import api_pb2 as api
from tests.support.cri_client import Client

_FIRST, _SIZE = 2_000_000, 65536


def _mappings(host: int = _FIRST, size: int = _SIZE) -> list[Any]:
    return [api.IDMapping(container_id=0, host_id=host, length=size)]


def _options(**more: Any) -> Any:
    mapped = api.UserNamespace(mode=api.POD, uids=_mappings(), gids=_mappings())
    return api.NamespaceOption(**{"pid": api.CONTAINER, "userns_options": mapped, **more})


@pytest.fixture(params=["own PIDs", "shared PIDs", "host network"])
def mapped(client: Client, request: pytest.FixtureRequest) -> Iterator[tuple[str, Any]]:
    """A pod with a user namespace, and the security context of its containers."""
    more = {"own PIDs": {}, "shared PIDs": {"pid": api.POD}, "host network": {"network": api.NODE}}[request.param]
    options = _options(**more)
    sysctls = {"kernel.shm_rmid_forced": "1"}
    if "network" not in more:
        sysctls["net.ipv4.ip_forward"] = "0"
    pod = client.pod("mapped", security_context=api.LinuxSandboxSecurityContext(namespace_options=options), sysctls=sysctls)
    yield pod, api.LinuxContainerSecurityContext(namespace_options=options)
    client.runtime.RemovePodSandbox(api.RemovePodSandboxRequest(pod_sandbox_id=pod))
    for log in client.logs.iterdir():
        log.unlink()


def test_root_of_the_pod_is_nobody_on_the_node(client: Client, mapped: tuple[str, Any]) -> None:
    """Root inside, an ordinary user outside, in exec too; the status tells the mapping."""
    pod, security = mapped
    container = client.run(pod, "sleep 1234", security=security)
    answer = client.exec(container, "sh", "-c", "id -u; cat /proc/self/uid_map; cat /proc/sys/kernel/shm_rmid_forced")
    assert answer.stdout.split() == [b"0", b"0", str(_FIRST).encode(), str(_SIZE).encode(), b"1"]
    verbose = client.runtime.ContainerStatus(api.ContainerStatusRequest(container_id=container, verbose=True))
    assert os.stat(f"/proc/{json.loads(verbose.info['info'])['pid']}").st_uid == _FIRST
    status = client.runtime.PodSandboxStatus(api.PodSandboxStatusRequest(pod_sandbox_id=pod)).status
    assert status.linux.namespaces.options.userns_options.uids[0].host_id == _FIRST


def test_its_files_are_its_own(client: Client, mapped: tuple[str, Any]) -> None:
    """hosts, resolv.conf and /dev/shm belong to its root and can be written; the image shows root as owner."""
    pod, security = mapped
    script = "stat -c %u /etc/hosts /etc/resolv.conf /dev/shm /bin; echo x >> /etc/hosts && echo y > /dev/shm/f && echo z > /new"
    status = client.ended(client.run(pod, script, security=security))
    assert (status.exit_code, client.contents()) == (0, ["0"] * 4)


def test_a_mapped_volume_keeps_its_owners(client: Client, mapped: tuple[str, Any], tmp_path: Path) -> None:
    """As the kubelet asks for its volumes; a mapping that is not the pod's is refused by the field."""
    pod, security = mapped
    (tmp_path / "file").touch()
    os.chown(tmp_path / "file", 12, 13)
    mount = api.Mount(container_path="/v", host_path=str(tmp_path), uidMappings=_mappings(), gidMappings=_mappings())
    script = "stat -c '%u %g' /v/file; touch /v/new"
    client.ended(client.run(pod, script, security=security, mounts=[mount], log_path="mapped.log"))
    assert client.contents("mapped.log") == ["12 13"]
    assert (tmp_path / "new").stat().st_uid == 0
    wrong = api.Mount(container_path="/v", host_path=str(tmp_path), uidMappings=_mappings(7), gidMappings=_mappings(7))
    with pytest.raises(grpc.RpcError, match=r"config.mounts\[0\].uidMappings"):
        client.create(pod, "true", security=security, mounts=[wrong], name="wrong")


def test_the_handler_says_that_it_can(client: Client) -> None:
    """The kubelet asks for user namespaces only then."""
    answer = client.runtime.Status(api.StatusRequest())
    assert all(handler.features.user_namespaces for handler in answer.runtime_handlers)
    assert answer.features.user_namespaces_host_network


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (_options(pid=api.NODE), "userns_options"),
        (_options(ipc=api.NODE), "userns_options"),
        (_options(userns_options=api.UserNamespace(mode=api.POD)), "uids"),
        (_options(userns_options=api.UserNamespace(mode=api.POD, uids=_mappings(), gids=_mappings(5))), "gids"),
        (_options(userns_options=api.UserNamespace(mode=api.POD, uids=_mappings() * 2, gids=_mappings() * 2)), "uids"),
        (_options(userns_options=api.UserNamespace(mode=api.POD, uids=_mappings(2**32 - 1), gids=_mappings(2**32 - 1))), "uids"),
        (_options(userns_options=api.UserNamespace(mode=api.NODE, uids=_mappings(), gids=_mappings())), "userns_options"),
        (_options(userns_options=api.UserNamespace(mode=api.CONTAINER)), "userns_options.mode"),
    ],
)
def test_a_mapping_that_cannot_be_is_refused(client: Client, options: Any, field: str) -> None:
    """InvalidArgument with the field, and no pod."""
    with pytest.raises(grpc.RpcError) as refused:
        client.pod("refused", security_context=api.LinuxSandboxSecurityContext(namespace_options=options))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert field in refused.value.details()
    assert not client.runtime.ListPodSandbox(api.ListPodSandboxRequest()).items


@pytest.mark.parametrize("asked", [[], ["/proc/interrupts", "/proc/keys"]])
def test_proc_is_hidden_as_the_kubelet_says(client: Client, mapped: tuple[str, Any], asked: list[str]) -> None:
    """procMount: Unmasked is two empty lists; then nothing lies over /proc, and a container within can mount its own."""
    pod, security = mapped
    security.masked_paths.extend(asked)
    security.readonly_paths.extend(["/proc/sys"] if asked else [])
    answer = client.exec(client.run(pod, "sleep 100", security=security), "cat", "/proc/self/mountinfo")
    over = [line.split()[4] for line in answer.stdout.decode().splitlines() if line.split()[4].startswith("/proc/")]
    assert sorted(over) == (sorted([*asked, "/proc/sys"]) if asked else [])
