"""A node of one's own: trivet-cri, a registry and an unmodified kubelet on private directories."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc

from cri.api.v1 import api_pb2 as api
from cri.api.v1 import api_pb2_grpc
from e2e.wait import wait_for
from runtime_core.kernel import mounts, syscalls

_V1 = Path("/sys/fs/cgroup")
_SUBNET = "10.231.0.0/16"
BRIDGE = "trivet-e2e0"


class Node:
    """Everything is below `directory`; `close` fails when something is left."""

    def __init__(self, directory: Path, kubelet: Path) -> None:
        self.directory, self._kubelet_program = directory, kubelet
        self.cgroup = f"/trivet-e2e-{os.getpid()}"
        self.manifests = directory / "manifests"
        self.manifests.mkdir()
        self._port = _free_port()
        self._daemon: subprocess.Popen[bytes] | None = None
        self._kubelet: subprocess.Popen[bytes] | None = None
        self._logs = contextlib.ExitStack()
        self._write_cni()
        self._make_cgroups()
        # The node's directories on a shared mount, as systemd makes it: mount propagation needs it.
        syscalls.mount(str(directory), str(directory), "", syscalls.MS_BIND)
        syscalls.mount("", str(directory), "", syscalls.MS_SHARED)

    def start_daemon(self) -> None:
        log = self._logs.enter_context((self.directory / "trivet.log").open("ab"))
        self._daemon = subprocess.Popen(
            [
                sys.executable, "-m", "cri", "serve", "--listen", self.endpoint,
                "--root", str(self.directory / "root"), "--state", str(self.directory / "state"),
                "--cni-conf-dir", str(self.directory / "cni"), "--cni-bin-dir", str(self.directory / "bin"),
                "--registry-dir", str(self.directory / "registries"),
            ],
            stdout=subprocess.PIPE, stderr=log,
        )  # fmt: skip
        assert self._daemon.stdout is not None
        line = self._daemon.stdout.readline()
        assert b"ready" in line, (self.directory / "trivet.log").read_text()[-2000:]

    def kill_daemon(self) -> None:
        assert self._daemon is not None
        self._daemon.send_signal(signal.SIGKILL)
        self._reap_daemon()

    def _reap_daemon(self) -> None:
        assert self._daemon is not None
        assert self._daemon.stdout is not None
        self._daemon.wait(30)
        self._daemon.stdout.close()

    def start_kubelet(self) -> None:
        config = self.directory / "kubelet.json"
        config.write_text(json.dumps(self._kubelet_config()))
        log = self._logs.enter_context((self.directory / "kubelet.log").open("ab"))
        self._kubelet = subprocess.Popen(
            [str(self._kubelet_program), "--config", str(config), "--root-dir", str(self.directory / "kubelet"),
             "--hostname-override", "trivet-node", "--v", "2"],
            stdout=log, stderr=log,
        )  # fmt: skip
        wait_for("kubelet", self._kubelet_answers, 60)

    @property
    def endpoint(self) -> str:
        return f"unix://{self.directory}/cri.sock"

    def runtime(self) -> Any:
        return api_pb2_grpc.RuntimeServiceStub(grpc.insecure_channel(self.endpoint))

    def write_pod(self, name: str, spec: dict[str, Any]) -> None:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec}
        temporary = self.manifests / f".{name}"
        temporary.write_text(json.dumps(pod))
        temporary.rename(self.manifests / f"{name}.json")

    def remove_pod(self, name: str) -> None:
        (self.manifests / f"{name}.json").unlink()

    def pod(self, name: str) -> dict[str, Any]:
        """The kubelet's view, {} when it has none."""
        for pod in json.loads(self.get("/pods"))["items"] or []:
            if pod["metadata"]["name"].startswith(name):
                found: dict[str, Any] = pod
                return found
        return {}

    def is_ready(self, name: str) -> bool:
        conditions = self.pod(name).get("status", {}).get("conditions") or []
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    def containers(self, pod: str) -> list[Any]:
        listed = self.runtime().ListContainers(api.ListContainersRequest()).containers
        return [c for c in listed if c.labels["io.kubernetes.pod.name"].startswith(pod)]

    def get(self, path: str) -> str:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=20, context=context)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read().decode()
            assert response.status == http.client.OK, f"{path}: {response.status} {body[:300]}"
            return body
        finally:
            connection.close()

    def close(self) -> list[str]:
        """End everything; what was left behind by then."""
        if self._kubelet is not None:
            self._kubelet.kill()
            self._kubelet.wait()
        left = self._leftovers() if self._daemon is not None else []
        self._remove_pods()
        if self._daemon is not None and self._daemon.poll() is None:
            self._daemon.terminate()
            self._reap_daemon()
        self._logs.close()
        mounts.unmount_below(str(self.directory))
        subprocess.run(["ip", "link", "delete", BRIDGE], check=False, capture_output=True)
        for hierarchy in (*_hierarchies(), _V1 / "unified"):
            for directory, _names, _files in os.walk(f"{hierarchy}{self.cgroup}", topdown=False):
                os.rmdir(directory)
        return left

    def _leftovers(self) -> list[str]:
        """What no pod explains: asked when all manifests are gone and the kubelet has cleaned up."""
        left = [f"container {c.id}" for c in self.runtime().ListContainers(api.ListContainersRequest()).containers]
        for part in ("state/pods", "state/netns", "root/cni", "root/overlayfs/snapshots"):
            left += [f"{part}/{name}" for name in os.listdir(self.directory / part)]
        state = str(self.directory / "state")
        return left + [f"mount {point}" for point in mounts.current_mount_points() if point.startswith(state)]

    def _remove_pods(self) -> None:
        if self._daemon is None or self._daemon.poll() is not None:
            return
        runtime = self.runtime()
        for pod in runtime.ListPodSandbox(api.ListPodSandboxRequest()).items:
            runtime.StopPodSandbox(api.StopPodSandboxRequest(pod_sandbox_id=pod.id))
            runtime.RemovePodSandbox(api.RemovePodSandboxRequest(pod_sandbox_id=pod.id))

    def _write_cni(self) -> None:
        (self.directory / "cni").mkdir()
        bridge = {
            "type": "bridge",
            "bridge": BRIDGE,
            "isGateway": True,
            "ipMasq": True,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "dataDir": str(self.directory / "ipam"),
                "ranges": [[{"subnet": _SUBNET}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
        conflist = {"cniVersion": "1.0.0", "name": "e2e", "plugins": [bridge]}
        (self.directory / "cni" / "10-e2e.conflist").write_text(json.dumps(conflist))

    def _make_cgroups(self) -> None:
        for hierarchy in _hierarchies():
            path = Path(f"{hierarchy}{self.cgroup}")
            path.mkdir()
            for name in ("cpuset.cpus", "cpuset.mems"):
                if (path / name).exists():
                    (path / name).write_text((hierarchy / name).read_text())

    def _kubelet_config(self) -> dict[str, Any]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "containerRuntimeEndpoint": self.endpoint,
            "staticPodPath": str(self.manifests),
            "fileCheckFrequency": "1s",
            "syncFrequency": "5s",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": self.cgroup,
            "failCgroupV1": False,
            "failSwapOn": False,
            "address": "127.0.0.1",
            "port": self._port,
            "healthzPort": 0,
            "enableServer": True,
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "evictionHard": {"memory.available": "1Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
            "imageGCHighThresholdPercent": 100,
            "podLogsDir": str(self.directory / "pod-logs"),
            "registerNode": False,
            "maxPods": 250,
            "enableControllerAttachDetach": False,
        }

    def _kubelet_answers(self) -> bool:
        assert self._kubelet is not None
        assert self._kubelet.poll() is None, (self.directory / "kubelet.log").read_text()[-3000:]
        try:
            return self.get("/healthz") == "ok"
        except (OSError, AssertionError):
            return False


def _hierarchies() -> list[Path]:
    return [path for path in _V1.iterdir() if path.name != "unified" and (path / "cgroup.procs").exists()]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
