"""Programs of others that speak CNI drive our executables: cnitool, podman and containerd."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.peer import Containerd
from cri.api.v1 import api_pb2 as api
from e2e.peers.build import build
from e2e.wait import wait_for
from runtime_core.testing import namespaces
from runtime_core.testing.tools import require_program
from trivet.demo import image as demo_image
from trivet.demo.registry import Registry

pytestmark = pytest.mark.timeout(1800)  # the first run compiles

_ROOT = Path(__file__).parents[2]
_GATEWAY, _HOST_PORT = "10.94.0.1", 18094
_TOOLS = ("sh", "ip", "nc", "sleep", "cat", "echo")
#: what a container says to whoever connects
_SERVE = "while :; do echo hello | busybox nc -l -p 80; done"


class Node:
    """A network namespace of its own with our executables, warm, and a list that gives addresses of 10.94.0.0/16."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.bin = directory, directory / "bin"
        self.socket = directory / "service" / "s.sock"
        (directory / "net.d").mkdir()
        (directory / "net.d" / "10-callers.conflist").write_text(json.dumps(self.network()))
        command = [sys.executable, "-m", "cni_plugins", "install", "--bin-dir", str(self.bin), "--socket", str(self.socket)]
        subprocess.run(command, cwd=_ROOT, check=True, capture_output=True)

    def network(self) -> dict[str, Any]:
        ipam = {
            "type": "host-local", "dataDir": str(self.directory / "ipam"), "ranges": [[{"subnet": "10.94.0.0/16"}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        }  # fmt: skip
        bridge = {"type": "bridge", "bridge": "callers0", "isGateway": True, "ipMasq": True, "hairpinMode": True, "ipam": ipam}
        portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
        return {"cniVersion": "1.0.0", "name": "callers", "plugins": [bridge, portmap]}

    def left(self) -> dict[str, Any]:
        """What should be gone: links of the node, leases, and rules that name an address of the network."""
        links = json.loads(_output("ip", "-j", "link"))
        leases = [sys.executable, "-m", "cni_plugins", "leases", "--json", "--data-dir", str(self.directory / "ipam")]
        rules = _output("nft", "list", "ruleset").replace("/", " ").split()
        return {
            "links": [link["ifname"] for link in links if link["ifname"] not in ("lo", "callers0")],
            "leases": subprocess.run(leases, cwd=_ROOT, check=True, capture_output=True, text=True).stdout.splitlines(),
            "rules": [word for word in rules if word.startswith("10.94.") and not word.startswith("10.94.0.0")],
        }

    def close(self) -> None:
        if self.socket.exists():
            os.kill(int(Path(f"{self.socket}.lock").read_text()), signal.SIGTERM)
            wait_for("the service's end", lambda: not self.socket.exists())


_NOTHING: dict[str, Any] = {"links": [], "leases": [], "rules": []}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    require_program("nft", "nftables")
    require_program("ip", "iproute2")
    with namespaces.node_namespace():
        node = Node(tmp_path)
        yield node
        node.close()


def test_cnitool(node: Node) -> None:
    """Every verb that it has; traffic through the port map; what it attached, trivet-cni detaches, and the other way."""
    pod = node.directory / "pod"
    namespaces.pin_namespace(pod)
    ports = [{"hostPort": _HOST_PORT, "containerPort": 80, "protocol": "tcp"}]
    environment = {
        "PATH": os.environ["PATH"], "NETCONFPATH": str(node.directory / "net.d"), "CNI_PATH": str(node.bin),
        "CAP_ARGS": json.dumps({"portMappings": ports}), "PYTHONPATH": str(_ROOT),
    }  # fmt: skip
    theirs = [str(build("cnitool"))]
    ours = [sys.executable, "-m", "cni_plugins"]

    def call(program: list[str], verb: str) -> str:
        more = ["--cache-dir", str(node.directory / "calls")] if program is ours else []
        return _output(*program, verb, "callers", str(pod), *more, env=environment)

    with _closing(pod):
        for first, second in ((theirs, theirs), (theirs, ours), (ours, theirs)):
            result = json.loads(call(first, "add"))
            address = result["ips"][0]["address"].partition("/")[0]
            assert namespaces.addresses(str(pod)) == {address}
            call(first, "check")
            call(first, "status")
            with _serving(pod):
                assert _hear(address, 80) == _hear(_GATEWAY, _HOST_PORT) == b"hello\n"
            call(second, "del")
            assert node.left() == _NOTHING
        call(ours, "gc")  # its own cache still knows what cnitool has detached
        call(theirs, "add")
        call(theirs, "gc")
        assert node.left() == _NOTHING


def test_podman(node: Node) -> None:
    """A container by its CNI backend: address, default route, a port of the node; nothing is left when it is removed."""
    podman = require_program("podman", "podman")
    runtime = shutil.which("runc") or require_program("crun", "crun")  # crun refuses a hybrid cgroup hierarchy
    _write_podman_configuration(node, runtime)
    root = _root_file_system(node.directory / "rootfs")
    options = [
        "--root", str(node.directory / "root"), "--runroot", "/run/callers", "--storage-driver", "vfs",
        "--cgroup-manager", "cgroupfs",
    ]  # fmt: skip
    run = [
        "run", "--rm", "--network", "callers", "-p", f"{_HOST_PORT}:80", "--security-opt", "seccomp=unconfined",
        "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--rootfs", str(root), "sh", "-c",
        "ip -o -4 addr show eth0; ip route; echo ready; echo hello | busybox nc -l -p 80",
    ]  # fmt: skip
    # A /run of its own: podman keeps locks and names of namespaces there.
    alone = ["unshare", "-m", "--propagation", "private", "sh", "-c", 'mount -t tmpfs none /run && exec "$@"', "-"]
    environment = {**os.environ, "CONTAINERS_CONF": str(node.directory / "containers.conf")}
    with subprocess.Popen([*alone, podman, *options, *run], stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout
        said = []
        while (line := process.stdout.readline()) and line != "ready\n":
            said.append(line)
        assert any(" 10.94.0." in line for line in said), said
        assert any(line.startswith(f"default via {_GATEWAY}") for line in said), said
        assert _hear(_GATEWAY, _HOST_PORT) == b"hello\n"
    assert process.returncode == 0
    assert node.left() == _NOTHING


def test_containerd(node: Node) -> None:
    """A pod by CRI: the address that it reports answers, a port of the node too; nothing is left when it is removed."""
    registry = Registry()
    layer = demo_image.build_layer()
    pause = registry.put_image("callers/pause", "1", [layer], {"Env": ["PATH=/bin"], "Entrypoint": ["sleep", "86399"]})
    os.environ["TRIVET_BENCH_PAUSE"] = pause
    containerd = OurPlugins(node)
    try:
        containerd.images.PullImage(api.PullImageRequest(image=api.ImageSpec(image=pause)))
        pod, config = _run_pod(containerd)
        _run_container(containerd, pod, config, pause)
        status = containerd.runtime.PodSandboxStatus(api.PodSandboxStatusRequest(pod_sandbox_id=pod)).status
        assert status.network.ip.startswith("10.94.0.")
        assert _hear(status.network.ip, 80) == _hear(_GATEWAY, _HOST_PORT) == b"hello\n"
        containerd.runtime.StopPodSandbox(api.StopPodSandboxRequest(pod_sandbox_id=pod))
        containerd.runtime.RemovePodSandbox(api.RemovePodSandboxRequest(pod_sandbox_id=pod))
        assert node.left() == _NOTHING
    finally:
        containerd.close()
        registry.close()


class OurPlugins(Containerd):
    """The containerd of the benchmarks with our executables and list."""

    def __init__(self, node: Node) -> None:
        self._node = node
        super().__init__()

    def _network(self) -> dict[str, Any]:
        return self._node.network()

    def _config(self) -> str:
        return super()._config().replace(f'bin_dirs = ["{self._home}/bin"]', f'bin_dirs = ["{self._node.bin}"]')


def _run_pod(containerd: Containerd) -> tuple[str, Any]:
    config = api.PodSandboxConfig(
        metadata=api.PodSandboxMetadata(name="callers", uid="callers", namespace="e2e"),
        log_directory=str(containerd.directory / "bench-logs"),
        port_mappings=[api.PortMapping(protocol=api.TCP, container_port=80, host_port=_HOST_PORT)],
        linux=api.LinuxPodSandboxConfig(cgroup_parent=f"{containerd.cgroup}/pod"),
    )
    return str(containerd.runtime.RunPodSandbox(api.RunPodSandboxRequest(config=config)).pod_sandbox_id), config


def _run_container(containerd: Containerd, pod: str, config: Any, reference: str) -> None:
    container = api.ContainerConfig(
        metadata=api.ContainerMetadata(name="c"),
        image=api.ImageSpec(image=reference),
        command=["sh", "-c", _SERVE],
        log_path="c.log",
    )
    request = api.CreateContainerRequest(pod_sandbox_id=pod, config=container, sandbox_config=config)
    identifier = containerd.runtime.CreateContainer(request).container_id
    containerd.runtime.StartContainer(api.StartContainerRequest(container_id=identifier))


def _write_podman_configuration(node: Node, runtime: str) -> None:
    name = Path(runtime).name
    (node.directory / "containers.conf").write_text(
        f"""
[network]
network_backend = "cni"
cni_plugin_dirs = ["{node.bin}"]
network_config_dir = "{node.directory}/net.d"
default_network = "callers"
[engine]
events_logger = "file"
runtime = "{name}"
[engine.runtimes]
{name} = ["{runtime}"]
"""
    )


def _root_file_system(root: Path) -> Path:
    for name in ("bin", "proc", "dev", "sys", "etc", "tmp"):
        (root / name).mkdir(parents=True)
    shutil.copy(require_program("busybox", "busybox-static"), root / "bin" / "busybox")
    for tool in _TOOLS:
        (root / "bin" / tool).symlink_to("busybox")
    return root


@contextmanager
def _closing(pod: Path) -> Iterator[None]:
    try:
        yield
    finally:
        namespaces.unpin_namespace(pod)


@contextmanager
def _serving(pod: Path) -> Iterator[None]:
    """Two callers hear hello on port 80 of the pod."""
    with namespaces.in_pinned_namespace(str(pod)):
        listener = socket.create_server(("", 80))
    pid = os.fork()
    if pid == 0:
        try:
            for _caller in range(2):
                listener.accept()[0].sendall(b"hello\n")
        finally:
            os._exit(0)
    listener.close()
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _hear(address: str, port: int) -> bytes:
    """What is said there; it is tried again until somebody listens."""

    def look() -> bytes:
        try:
            with socket.create_connection((address, port), timeout=5) as connection:
                return connection.recv(100)
        except (ConnectionRefusedError, ConnectionResetError):
            return b""

    return wait_for(f"{address}:{port}", look, 20)


def _output(*command: str, **more: Any) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=_ROOT, **more)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout
