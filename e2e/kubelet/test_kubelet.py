"""An unmodified kubelet runs its pods on Trivet."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.kubelet.node import Node
from e2e.peers.build import build
from e2e.registry import ForeignRegistry
from e2e.wait import wait_for

pytestmark = pytest.mark.timeout(3000)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A small image in a registry that is not ours."""
    registry = ForeignRegistry(build("registry"), tmp_path_factory.mktemp("registry"))
    yield registry.push_tools()
    registry.close()


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    directory = Path(tempfile.mkdtemp(prefix="trivet-e2e-"))
    node = Node(directory, build("kubelet"))
    try:
        node.start_daemon()
        node.start_kubelet()
        yield node
        left = node.close()
    except BaseException:
        node.close()
        raise
    shutil.rmtree(directory)
    assert left == []


def test_a_static_pod_with_all_its_parts_becomes_ready(node: Node, image: str) -> None:
    """Limits, an init container, two probes, a shared emptyDir and a hostPath; then it goes without a trace."""
    shared = node.directory / "shared"
    shared.mkdir()
    (shared / "from-host").write_text("host")
    node.write_pod("full", _full_pod(image, shared))
    wait_for("pod full ready", lambda: node.is_ready("full"), 60)
    pod = node.pod("full")
    logs = node.get(f"/containerLogs/default/{pod['metadata']['name']}/writer")
    assert "init was here" in logs
    assert (shared / "from-pod").read_text() == "pod\n"
    assert pod["status"]["podIP"].startswith("10.231.")
    node.remove_pod("full")
    wait_for("pod full gone", lambda: not node.pod("full") and not node.containers("full"), 60)


def test_a_crashing_container_is_restarted_with_back_off(node: Node, image: str) -> None:
    """It ends with 3, is started again, and the kubelet waits longer each time."""
    node.write_pod("crash", {"containers": [_container(image, "c", "echo crashing; exit 3")]})

    def waiting() -> dict[str, Any]:
        for status in node.pod("crash").get("status", {}).get("containerStatuses") or []:
            if status["restartCount"] >= 1 and (status["state"].get("waiting") or {}).get("reason") == "CrashLoopBackOff":
                found: dict[str, Any] = status
                return found
        return {}

    status = wait_for("CrashLoopBackOff", waiting, 90)
    assert status["lastState"]["terminated"]["exitCode"] == 3
    assert status["lastState"]["terminated"]["reason"] == "Error"
    node.remove_pod("crash")
    wait_for("pod crash gone", lambda: not node.pod("crash") and not node.containers("crash"), 60)


def test_a_killed_daemon_does_not_restart_a_pod(node: Node, image: str) -> None:
    """The same container goes on, its log too; the kubelet counts no restart."""
    node.write_pod("steady", {"containers": [_container(image, "c", "while :; do date; sleep 1; done")]})
    wait_for("pod steady ready", lambda: node.is_ready("steady"), 60)
    (before,) = node.containers("steady")
    node.kill_daemon()
    node.start_daemon()
    (after,) = node.containers("steady")
    assert (after.id, after.state) == (before.id, before.state)
    name = node.pod("steady")["metadata"]["name"]
    lines = len(node.get(f"/containerLogs/default/{name}/c").splitlines())
    wait_for("the log goes on", lambda: len(node.get(f"/containerLogs/default/{name}/c").splitlines()) > lines + 2, 20)
    wait_for("pod steady still ready", lambda: node.is_ready("steady"), 30)
    assert node.pod("steady")["status"]["containerStatuses"][0]["restartCount"] == 0
    assert [c.id for c in node.containers("steady")] == [before.id]
    node.remove_pod("steady")
    wait_for("pod steady gone", lambda: not node.pod("steady") and not node.containers("steady"), 60)


def test_a_pod_with_a_user_namespace_of_its_own(node: Node, image: str) -> None:
    """hostUsers: false. Root in the pod is nobody on the node, and its emptyDir belongs to it."""
    script = "cat /proc/self/uid_map; stat -c %u /empty; echo x > /empty/f && exec sleep 600"
    volumes = [{"name": "empty", "emptyDir": {}}]
    mounts = [{"name": "empty", "mountPath": "/empty"}]
    node.write_pod(
        "mapped", {"hostUsers": False, "volumes": volumes, "containers": [_container(image, "c", script, volumeMounts=mounts)]}
    )
    wait_for("pod mapped ready", lambda: node.is_ready("mapped"), 60)
    log = node.get(f"/containerLogs/default/{node.pod('mapped')['metadata']['name']}/c").split()
    assert log[0] == "0"
    assert int(log[1]) >= 65536
    assert log[2:] == ["65536", "0"]
    node.remove_pod("mapped")
    wait_for("pod mapped gone", lambda: not node.pod("mapped") and not node.containers("mapped"), 60)


def test_thirty_pods_at_once_become_ready(node: Node, image: str) -> None:
    """All of them, and all of them go again."""
    names = [f"many-{number}-" for number in range(30)]
    for name in names:
        node.write_pod(name + "x", {"containers": [_container(image, "c", "sleep 600")], "terminationGracePeriodSeconds": 1})
    wait_for("30 pods ready", lambda: all(node.is_ready(name) for name in names), 120)
    for name in names:
        node.remove_pod(name + "x")
    wait_for("30 pods gone", lambda: not node.containers("many-"), 120)
    wait_for("the kubelet has forgotten them", lambda: not node.pod("many-"), 60)
    wait_for("their sandboxes are gone", lambda: not list((node.directory / "state/pods").iterdir()), 120)


def _container(image: str, name: str, script: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "image": image, "command": ["sh", "-c", script], **more}


def _full_pod(image: str, shared: Path) -> dict[str, Any]:
    empty, host = {"name": "empty", "mountPath": "/empty"}, {"name": "host", "mountPath": "/host"}
    server = "mkdir -p /tmp/www; echo ok > /tmp/www/ok; exec httpd -f -p 8080 -h /tmp/www"
    writer = "cat /empty/init; echo pod > /host/from-pod; touch /empty/ready; trap 'exit 0' TERM; while :; do sleep 1; done"
    return {
        "terminationGracePeriodSeconds": 5,
        "volumes": [{"name": "empty", "emptyDir": {}}, {"name": "host", "hostPath": {"path": str(shared)}}],
        "initContainers": [_container(image, "init", "echo init was here > /empty/init", volumeMounts=[empty])],
        "containers": [
            _container(
                image,
                "writer",
                writer,
                volumeMounts=[empty, host],
                resources={"limits": {"memory": "64Mi", "cpu": "500m"}},
                readinessProbe={"exec": {"command": ["cat", "/empty/ready"]}, "periodSeconds": 1},
            ),
            _container(
                image,
                "server",
                server,
                volumeMounts=[empty],
                resources={"limits": {"memory": "64Mi"}},
                livenessProbe={"httpGet": {"path": "/ok", "port": 8080}, "periodSeconds": 1, "initialDelaySeconds": 1},
            ),
        ],
    }
