"""One name, one pod and one container: a lost answer is given again, and nothing else goes by a name that is taken."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from cri.api.v1 import api_pb2 as api
from tests.support.cri_client import Client


def _refused(call: Any, *arguments: Any, **more: Any) -> str:
    with pytest.raises(grpc.RpcError) as refused:
        call(*arguments, **more)
    assert "config.metadata" in refused.value.details()
    return str(refused.value.code().name)


def test_the_name_of_a_container_is_its_own_until_it_is_removed(client: Client, pod: str) -> None:
    """Created, running or ended; the next attempt is another name."""
    container = client.create(pod, "sleep 100")
    assert _refused(client.create, pod, "sleep 200") == "ALREADY_EXISTS"
    client.runtime.StartContainer(api.StartContainerRequest(container_id=container))
    assert _refused(client.create, pod, "sleep 100") == "ALREADY_EXISTS"
    client.runtime.StopContainer(api.StopContainerRequest(container_id=container))
    assert _refused(client.create, pod, "sleep 100") == "ALREADY_EXISTS"
    client.create(pod, "true", metadata=api.ContainerMetadata(name="c", attempt=1))
    client.runtime.RemoveContainer(api.RemoveContainerRequest(container_id=container))
    assert client.create(pod, "sleep 100") != container


def test_a_lost_answer_is_given_again(client: Client, pod: str) -> None:
    """To the same request, as a kubelet makes it again: its file for the termination message has another name."""
    annotations = {"io.kubernetes.container.terminationMessagePath": "/dev/termination-log"}
    files = [client.logs / name for name in ("first", "second")]
    found = []
    for file in files:
        file.touch()
        mounts = [api.Mount(container_path="/dev/termination-log", host_path=str(file))]
        found.append(client.create(pod, "true", annotations=annotations, mounts=mounts))
    assert found[0] == found[1]
    assert client.status(found[0]).mounts[0].host_path == str(files[0])


def test_of_many_at_once_one_is_made(client: Client, pod: str) -> None:
    """Equal requests get the same container, different ones are refused."""
    with ThreadPoolExecutor(8) as pool:
        equal = list(pool.map(lambda _number: client.create(pod, "true", name="equal"), range(8)))
        tried = [pool.submit(client.create, pod, f"exit {number}", name="other") for number in range(8)]
    assert len(set(equal)) == 1
    assert len([one for one in tried if one.exception() is None]) == 1
    assert len(client.runtime.ListContainers(api.ListContainersRequest()).containers) == 2


def test_the_name_of_a_pod_is_its_own_until_it_is_removed(client: Client) -> None:
    """The same request gets the pod again while it is ready, another one is refused."""
    pod = client.pod("name")
    assert client.pod("name") == pod
    assert _refused(client.pod, "name", sysctls={"net.ipv4.ip_forward": "0"}) == "ALREADY_EXISTS"
    client.runtime.StopPodSandbox(api.StopPodSandboxRequest(pod_sandbox_id=pod))
    assert _refused(client.pod, "name") == "ALREADY_EXISTS"
    client.runtime.RemovePodSandbox(api.RemovePodSandboxRequest(pod_sandbox_id=pod))
    again = client.pod("name")
    assert again != pod
    client.runtime.RemovePodSandbox(api.RemovePodSandboxRequest(pod_sandbox_id=again))
