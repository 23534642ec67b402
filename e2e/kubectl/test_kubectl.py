"""kubectl, an API server and an unmodified kubelet reach what runs on Trivet: each call over WebSocket and over SPDY."""

from __future__ import annotations

import hashlib
import os
import pty
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.csi.cluster import NODE, Cluster, network
from e2e.peers.build import build
from e2e.registry import ForeignRegistry
from e2e.wait import wait_for

pytestmark = pytest.mark.timeout(3000)

_PODS = "/api/v1/namespaces/default/pods"
_PROTOCOLS = {
    "websocket": {},
    "spdy": {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false", "KUBECTL_PORT_FORWARD_WEBSOCKETS": "false"},
}
both = pytest.mark.parametrize("protocol", list(_PROTOCOLS))


class Kubectl:
    """The program, with the cluster's configuration."""

    def __init__(self, cluster: Cluster) -> None:
        self._program, self._cluster = build("kubectl"), cluster

    def command(self, *arguments: str) -> list[str]:
        return [str(self._program), f"--kubeconfig={self._cluster.kubeconfig()}", *arguments]

    def environment(self, protocol: str) -> dict[str, str]:
        return {"HOME": str(self._cluster.directory), "PATH": os.environ["PATH"], **_PROTOCOLS[protocol]}

    def run(self, protocol: str, *arguments: str, stdin: bytes = b"", code: int = 0) -> bytes:
        ended = subprocess.run(
            self.command(*arguments), input=stdin, capture_output=True, timeout=120, env=self.environment(protocol)
        )
        assert ended.returncode == code, (ended.returncode, ended.stdout[-500:], ended.stderr)
        return ended.stdout

    def start(self, protocol: str, *arguments: str, **streams: Any) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(self.command(*arguments), env=self.environment(protocol), **streams)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    directory = Path(tempfile.mkdtemp(prefix="trivet-e2e-"))
    with network():
        cluster = Cluster(directory)
        try:
            cluster.start_control_plane()
            cluster.start_daemon()
            cluster.start_kubelet()
            yield cluster
            for pod in cluster.api.get(_PODS)["items"]:
                cluster.api.delete(f"{_PODS}/{pod['metadata']['name']}?gracePeriodSeconds=1")
            wait_for("no pods", lambda: not cluster.api.get(_PODS)["items"] and not _sandboxes(cluster), 120)
        finally:
            left = cluster.close()
    shutil.rmtree(directory)
    assert left == []


def _sandboxes(cluster: Cluster) -> list[str]:
    return os.listdir(cluster.directory / "root/overlayfs/snapshots") + os.listdir(cluster.directory / "state/pods")


@pytest.fixture(scope="module")
def kubectl(cluster: Cluster) -> Kubectl:
    return Kubectl(cluster)


@pytest.fixture(scope="module")
def image(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    registry = ForeignRegistry(build("registry"), tmp_path_factory.mktemp("registry"))
    yield registry.push_tools()
    registry.close()


def _create(cluster: Cluster, name: str, image: str, script: str, **container: Any) -> str:
    """A pod whose container runs `script`; its name, once it is ready."""
    spec = {"name": "c", "image": image, "command": ["sh", "-c", script], **container}
    cluster.api.create(_PODS, {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "nodeName": NODE, "containers": [spec], "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1, "restartPolicy": "Never",
        },
    })  # fmt: skip
    wait_for(f"pod {name}", lambda: _phase(cluster, name) == "Running", 90)
    return name


def _phase(cluster: Cluster, name: str) -> str:
    return str(cluster.api.get(f"{_PODS}/{name}")["status"]["phase"])


@pytest.fixture(scope="module")
def box(cluster: Cluster, image: str) -> str:
    return _create(cluster, "box", image, "i=0; while :; do echo tick $i; i=$((i+1)); sleep 0.2; done")


@both
def test_exec_has_streams_and_code(kubectl: Kubectl, box: str, protocol: str) -> None:
    """stdin to its end, standard output, and the code of the command."""
    assert kubectl.run(protocol, "exec", box, "--", "echo", "hello") == b"hello\n"
    kubectl.run(protocol, "exec", box, "--", "sh", "-c", "exit 42", code=42)
    content = os.urandom(3_000_000)
    digest = kubectl.run(protocol, "exec", "-i", box, "--", "busybox", "sha256sum", stdin=content)
    assert digest.split()[0].decode() == hashlib.sha256(content).hexdigest()
    kubectl.run(protocol, "exec", box, "--", "/no/such", code=1)


@both
def test_exec_has_a_terminal(kubectl: Kubectl, box: str, protocol: str) -> None:
    """kubectl exec -it, from a terminal of this test."""
    master, terminal = pty.openpty()
    process = kubectl.start(protocol, "exec", "-it", box, "--", "sh", stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)
    os.write(master, b"busybox tty; exit 9\n")
    shown = b""
    while b"/dev/pts/0" not in shown:
        shown += os.read(master, 4096)
    assert process.wait(60) == 9
    os.close(master)


@both
def test_attach_shows_what_is_written(kubectl: Kubectl, box: str, protocol: str) -> None:
    """From now on, until it is interrupted."""
    process = kubectl.start(protocol, "attach", box, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stdout.readline().startswith(b"tick ")
    process.send_signal(signal.SIGINT)
    process.wait(30)
    process.stdout.close()


@both
def test_attach_reaches_stdin(cluster: Cluster, kubectl: Kubectl, image: str, protocol: str) -> None:
    """stdinOnce: the end of the first client's is the program's."""
    name = _create(cluster, f"reader-{protocol}", image, "cat; echo ended", stdin=True, stdinOnce=True)
    assert b"hello\nended\n" in kubectl.run(protocol, "attach", "-i", name, stdin=b"hello\n")
    wait_for("it has ended", lambda: _phase(cluster, name) == "Succeeded", 60)


@both
def test_files_are_copied(cluster: Cluster, kubectl: Kubectl, box: str, protocol: str) -> None:
    """kubectl cp, there and back; the container needs tar."""
    kubectl.run(protocol, "exec", box, "--", "busybox", "ln", "-sf", "busybox", "/bin/tar")
    source, back = cluster.directory / f"cp-{protocol}", cluster.directory / f"back-{protocol}"
    source.write_bytes(os.urandom(2_000_000))
    kubectl.run(protocol, "cp", str(source), f"{box}:/tmp/copied")
    kubectl.run(protocol, "cp", f"{box}:/tmp/copied", str(back))
    assert source.read_bytes() == back.read_bytes()


@both
def test_a_port_is_forwarded(cluster: Cluster, kubectl: Kubectl, image: str, protocol: str) -> None:
    """Several connections, and a refused one that says so."""
    name = _create(cluster, f"server-{protocol}", image, "while :; do busybox nc -l -p 8080 -e cat; done")
    process = kubectl.start(
        protocol, "port-forward", name, ":8080", stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )  # fmt: skip
    assert process.stdout is not None
    port = int(process.stdout.readline().split(b"127.0.0.1:")[1].split()[0])
    for number in range(3):
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(b"ping %d" % number)
            assert connection.recv(100) == b"ping %d" % number
        time.sleep(0.2)  # nc listens again
    process.send_signal(signal.SIGINT)
    process.wait(30)
    process.stdout.close()


def test_logs_are_followed(kubectl: Kubectl, box: str) -> None:
    """kubectl logs -f."""
    process = kubectl.start("websocket", "logs", "-f", "--tail=1", box, stdout=subprocess.PIPE)
    assert process.stdout is not None
    first, second = process.stdout.readline(), process.stdout.readline()
    assert int(second.split()[1]) == int(first.split()[1]) + 1
    process.terminate()
    process.wait(30)
    process.stdout.close()


def test_a_gigabyte_comes_whole(kubectl: Kubectl, box: str) -> None:
    """Through kubelet and API server."""
    process = kubectl.start("websocket", "exec", box, "--", "head", "-c", "1000000000", "/dev/zero", stdout=subprocess.PIPE)
    assert process.stdout is not None
    digest, size = hashlib.sha256(), 0
    while data := process.stdout.read(1 << 20):
        digest.update(data)
        size += len(data)
    assert process.wait(60) == 0 and size == 1_000_000_000
    expected = hashlib.sha256()
    for _mebibyte in range(1000):
        expected.update(bytes(1_000_000))
    assert digest.digest() == expected.digest()
    process.stdout.close()
