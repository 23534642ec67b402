"""A pod whose monitor dies: not ready at once, its calls refused as what no retry helps, its containers ended."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from cri.api.v1 import api_pb2 as api
from e2e.wait import wait_for
from runtime_core.cgroups.detect import detect_version
from tests.support.cri_client import Client

_CONTAINERS = 40
#: a CNI plugin that kills the monitor of the pod which it attaches: the process that works in the pod's directory
_KILLER = """#!/bin/sh
[ "$CNI_COMMAND" = ADD ] || exit 0
for process in /proc/[0-9]*; do
    case $(readlink $process/cwd) in */pods/$CNI_CONTAINERID) kill -9 ${process#/proc/}; killed=$process ;; esac
done
while grep -q '^State:[[:space:]]*[^Z]' $killed/status 2>/dev/null; do :; done
echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.9.8.7/24"}]}'
"""


@pytest.fixture
def killer(client: Client) -> Any:
    """The node's network for as long as the test runs: a plugin that kills each pod's monitor."""
    directory, network = client.node.directory / "bin", client.node.directory / "cni" / "00-killer.conflist"
    directory.mkdir(exist_ok=True)
    (directory / "killer").write_text(_KILLER)
    (directory / "killer").chmod(0o755)
    network.write_text(json.dumps({"cniVersion": "1.0.0", "name": "killer", "plugins": [{"type": "killer"}]}))
    wait_for(
        "the network killer", lambda: _verdict(lambda: _remove(client, client.pod("probe"))) == grpc.StatusCode.UNAVAILABLE, 20
    )
    yield
    network.unlink()
    wait_for("the demo's network", lambda: _verdict(lambda: _remove(client, client.pod("probe"))) == grpc.StatusCode.OK, 20)


def test_a_pod_whose_monitor_dies_before_it_is_recorded_is_never_ready(client: Client, killer: None) -> None:
    """The call fails as one that may be tried again, no pod is listed, and nothing of it is left."""
    for number in range(5):
        with pytest.raises(grpc.RpcError) as refused:
            client.pod(f"early{number}")
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        assert "died while the pod was being opened" in refused.value.details()
    assert [pod for pod in _pods(client) if pod.metadata.name.startswith(("early", "probe"))] == []
    for part in ("pods", "netns"):
        assert os.listdir(client.node.directory / "state" / part) == []


def test_first_the_pod_is_not_ready_and_then_its_containers_end(client: Client, pod: str) -> None:
    """No look at the node finds an ended container in a ready pod, and no call is told to try again."""
    running = [client.run(pod, "sleep 1000", name=f"r{number}", log_path=f"{number}.log") for number in range(_CONTAINERS)]
    created = client.create(pod, "sleep 1000", name="created")
    os.kill(_monitor(client, pod), signal.SIGKILL)
    verdicts = {
        _verdict(lambda: client.exec(running[-1], "true")),
        _verdict(lambda: client.runtime.StartContainer(api.StartContainerRequest(container_id=created))),
        _verdict(lambda: client.create(pod, "true", name="late")),
    }
    assert verdicts == {grpc.StatusCode.FAILED_PRECONDITION}
    while any(_state(client, container) != api.CONTAINER_EXITED for container in (*running, created)):
        states = [_state(client, container) for container in running]
        assert api.CONTAINER_EXITED not in states or not _is_ready(client, pod)
    assert not _is_ready(client, pod)
    assert {client.status(container).exit_code for container in (*running, created)} == {137}


def test_a_lost_pod_is_cleaned_up_by_the_next_daemon(client: Client, pod: str) -> None:
    """What the last one had begun: it died after it had said that the pod was not ready."""
    container = client.run(pod, "sleep 1000")
    monitor = _monitor(client, pod)
    os.kill(monitor, signal.SIGSTOP)
    client.node.kill()
    os.kill(monitor, signal.SIGKILL)
    _forget_readiness(client.node.directory / "root" / "state.db", pod)
    client.node.start()
    client.runtime, client.images = client.node.runtime(), client.node.images()
    assert not _is_ready(client, pod)
    assert client.ended(container).exit_code == 137


def test_pods_that_go_at_once_take_their_common_cgroup_along(client: Client) -> None:
    """Each leaves it to the others while they are there, and one of them is the last."""
    top = Path("/sys/fs/cgroup/memory" if detect_version() == "v1" else "/sys/fs/cgroup", client.node.cgroup[1:])
    for number in range(15):
        pods = [client.pod(f"together{number}-{one}") for one in range(4)]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda pod: _remove(client, pod), pods))
        assert not top.exists()


def _forget_readiness(database: Path, pod: str) -> None:
    """As a daemon leaves it that dies between the two steps."""
    with sqlite3.connect(database) as connection:
        (document,) = connection.execute("SELECT document FROM records WHERE id = ?", (pod,)).fetchone()
        lost = json.dumps({**json.loads(document), "is_ready": False})
        connection.execute("UPDATE records SET document = ? WHERE id = ?", (lost, pod))
    connection.close()


def _monitor(client: Client, pod: str) -> int:
    """It works in the pod's directory."""
    directory = str(client.node.directory / "state" / "pods" / pod)
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{name}/cwd") == directory:
                return int(name)
        except OSError:
            continue
    raise AssertionError(f"no monitor works in {directory}")


def _verdict(call: Callable[[], object]) -> grpc.StatusCode:
    try:
        call()
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def _pods(client: Client) -> Any:
    return client.runtime.ListPodSandbox(api.ListPodSandboxRequest()).items


def _remove(client: Client, pod: str) -> None:
    client.runtime.RemovePodSandbox(api.RemovePodSandboxRequest(pod_sandbox_id=pod))


def _is_ready(client: Client, pod: str) -> bool:
    return any(item.id == pod and item.state == api.SANDBOX_READY for item in _pods(client))


def _state(client: Client, container: str) -> Any:
    request = api.ListContainersRequest(filter=api.ContainerFilter(id=container))
    return client.runtime.ListContainers(request).containers[0].state
