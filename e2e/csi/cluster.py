"""A cluster of one node in a network namespace of its own: etcd, API server, controllers, kubelet, trivet-cri and trivet-csi."""

from __future__ import annotations

import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import yaml

from csi_driver.api.v1 import csi_pb2_grpc as stubs
from e2e.kubelet.node import Node
from e2e.peers.build import build
from e2e.wait import wait_for
from runtime_core.testing.namespaces import node_namespace

DRIVER = "hostpath.csi.trivet.dev"
NODE = "trivet-node"
_ADDRESS, _PORT = "10.77.0.1", 6443
_TOKEN = "e2e"
#: an endpoint's controllers are not needed: pods name their node, and nothing is scheduled
_CONTROLLERS = (
    "persistentvolume-binder-controller", "persistentvolume-attach-detach-controller", "persistentvolume-expander-controller",
    "persistentvolumeclaim-protection-controller", "persistentvolume-protection-controller",
)  # fmt: skip


@contextmanager
def network() -> Iterator[None]:
    """Within the block this thread, and what it starts, have a network with one address that is not loopback."""
    with node_namespace():
        for command in (
            "link add node0 type veth peer name node1", f"address add {_ADDRESS}/24 dev node0",
            "link set node0 up", "link set node1 up", f"route add default via {_ADDRESS} dev node0",
        ):  # fmt: skip
            subprocess.run(["ip", *command.split()], check=True)
        yield


class Api:
    """The API server's HTTP interface, as a client that may do everything."""

    def get(self, path: str) -> dict[str, Any]:
        return self._call("GET", path)

    def create(self, path: str, document: dict[str, Any]) -> dict[str, Any]:
        return self._call("POST", path, json.dumps(document))

    def delete(self, path: str) -> None:
        self._call("DELETE", path)

    def merge(self, path: str, change: dict[str, Any]) -> dict[str, Any]:
        return self._call("PATCH", path, json.dumps(change), "application/merge-patch+json")

    def apply(self, path: str, document: dict[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        """Server-side apply; a field that the server does not know is an error."""
        query = "fieldManager=e2e&fieldValidation=Strict" + ("&dryRun=All" if dry_run else "")
        return self._call("PATCH", f"{path}?{query}", yaml.safe_dump(document), "application/apply-patch+yaml")

    def exists(self, path: str) -> bool:
        return self._answer("GET", path)[0] == http.client.OK

    def _call(self, method: str, path: str, body: str | None = None, kind: str = "application/json") -> dict[str, Any]:
        status, answer = self._answer(method, path, body, kind)
        assert status < http.client.MULTIPLE_CHOICES, f"{method} {path}: {status} {answer}"
        return answer

    def _answer(self, method: str, path: str, body: str | None = None, kind: str = "application/json") -> tuple[int, Any]:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(_ADDRESS, _PORT, timeout=30, context=context)
        try:
            connection.request(method, path, body, {"Authorization": f"Bearer {_TOKEN}", "Content-Type": kind})
            response = connection.getresponse()
            text = response.read().decode()
            return response.status, json.loads(text) if text.startswith("{") else text
        finally:
            connection.close()


class Cluster(Node):
    """A node whose kubelet has an API server, and the driver. Made within `network`."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, build("kubelet"))
        self.api = Api()
        self._programs: list[subprocess.Popen[bytes]] = []
        self._driver: subprocess.Popen[bytes] | None = None
        self._kubelet_directory = directory / "kubelet"
        self._kubelet_directory.mkdir()

    def start_control_plane(self) -> None:
        keys = self.directory / "keys"
        keys.mkdir()
        subprocess.run(["openssl", "genrsa", "-out", str(keys / "sa.key"), "2048"], check=True, capture_output=True)
        (keys / "tokens.csv").write_text(f"{_TOKEN},e2e,e2e,system:masters\n")
        self._start("etcd", *self._etcd())
        self._start("kube-apiserver", *self._api_server(keys))
        wait_for("the API server", self._is_ready, 90)
        self._start(
            "kube-controller-manager", f"--kubeconfig={self.kubeconfig()}", f"--controllers={','.join(_CONTROLLERS)}",
            "--leader-elect=false", "--bind-address=127.0.0.1", "--secure-port=0",
            "--attach-detach-reconcile-sync-period=2s", "--pvclaimbinder-sync-period=2s",
        )  # fmt: skip

    def _start(self, program: str, *arguments: str) -> None:
        log = self._logs.enter_context((self.directory / f"{program}.log").open("ab"))
        self._programs.append(subprocess.Popen([str(build(program)), *arguments], stdout=log, stderr=log))

    def _etcd(self) -> list[str]:
        return [
            f"--data-dir={self.directory / 'etcd'}", "--listen-client-urls=http://127.0.0.1:2379", "--unsafe-no-fsync",
            "--advertise-client-urls=http://127.0.0.1:2379", "--listen-peer-urls=http://127.0.0.1:2380", "--log-level=warn",
        ]  # fmt: skip

    def _api_server(self, keys: Path) -> list[str]:
        return [
            "--etcd-servers=http://127.0.0.1:2379", f"--bind-address={_ADDRESS}", f"--secure-port={_PORT}",
            f"--advertise-address={_ADDRESS}", f"--cert-dir={self.directory / 'certificates'}",
            "--authorization-mode=AlwaysAllow", f"--token-auth-file={keys / 'tokens.csv'}",
            f"--service-account-key-file={keys / 'sa.key'}", f"--service-account-signing-key-file={keys / 'sa.key'}",
            "--service-account-issuer=https://e2e", "--service-cluster-ip-range=10.78.0.0/24",
            "--disable-admission-plugins=ServiceAccount", "--allow-privileged=true",
            "--kubelet-preferred-address-types=InternalIP",
        ]  # fmt: skip

    def _is_ready(self) -> bool:
        program = self._programs[-1]
        assert program.poll() is None, (self.directory / "kube-apiserver.log").read_text()[-3000:]
        try:
            return self.api._answer("GET", "/readyz")[0] == http.client.OK
        except OSError:
            return False

    def kubeconfig(self) -> Path:
        path = self.directory / "kubeconfig"
        server = {"server": f"https://{_ADDRESS}:{_PORT}", "insecure-skip-tls-verify": True}
        document = {
            "apiVersion": "v1", "kind": "Config", "current-context": "e2e",
            "clusters": [{"name": "e2e", "cluster": server}],
            "users": [{"name": "e2e", "user": {"token": _TOKEN}}],
            "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": "e2e"}}],
        }  # fmt: skip
        path.write_text(json.dumps(document))
        return path

    def start_kubelet(self) -> None:
        config = self.directory / "kubelet.json"
        config.write_text(json.dumps(self._kubelet_config()))
        log = self._logs.enter_context((self.directory / "kubelet.log").open("ab"))
        self._kubelet = subprocess.Popen(
            [
                str(self._kubelet_program), "--config", str(config), "--root-dir", str(self._kubelet_directory),
                "--hostname-override", NODE, "--kubeconfig", str(self.kubeconfig()), "--node-ip", _ADDRESS, "--v", "4",
            ],
            stdout=log, stderr=log,
        )  # fmt: skip
        wait_for("kubelet", self._kubelet_answers, 60)
        wait_for("the node", lambda: self.api.exists(f"/api/v1/nodes/{NODE}"), 60)

    def _kubelet_config(self) -> dict[str, Any]:
        return {**super()._kubelet_config(), "address": "0.0.0.0", "registerNode": True, "enableControllerAttachDetach": True}

    @property
    def driver_socket(self) -> Path:
        return self._kubelet_directory / "plugins" / DRIVER / "csi.sock"

    def start_driver(self, backend: str = "loop") -> None:
        config = self.directory / "csi.yaml"
        settings = {
            "endpoint": f"unix://{self.driver_socket}", "root": str(self.directory / "csi"), "node-id": NODE,
            "kubelet-dir": str(self._kubelet_directory), "backend": backend, "attach": False,
        }  # fmt: skip
        config.write_text(yaml.safe_dump({"csi": settings}))
        log = self._logs.enter_context((self.directory / "csi.log").open("ab"))
        self._driver = subprocess.Popen(
            [sys.executable, "-m", "csi_driver", "serve", "--config", str(config)], stdout=subprocess.PIPE, stderr=log
        )
        assert self._driver.stdout is not None
        line = self._driver.stdout.readline()
        assert b"ready" in line, (self.directory / "csi.log").read_text()[-2000:]

    def kill_driver(self) -> None:
        assert self._driver is not None
        self._driver.send_signal(signal.SIGKILL)
        self._reap_driver()

    def _reap_driver(self) -> None:
        assert self._driver is not None
        assert self._driver.stdout is not None
        self._driver.wait(30)
        self._driver.stdout.close()

    def controller(self) -> Any:
        return stubs.ControllerStub(grpc.insecure_channel(f"unix://{self.driver_socket}"))

    def is_registered(self) -> bool:
        path = f"/apis/storage.k8s.io/v1/csinodes/{NODE}"
        if not self.api.exists(path):
            return False
        return any(driver["name"] == DRIVER for driver in self.api.get(path)["spec"]["drivers"] or [])

    def close(self) -> list[str]:
        try:
            return super().close()
        finally:
            if self._driver is not None and self._driver.poll() is None:
                self._driver.terminate()
                self._reap_driver()
            for program in reversed(self._programs):
                _end(program)

    def images(self) -> list[str]:
        """Volumes of the driver that are on disk."""
        return sorted(os.listdir(self.directory / "csi" / "loop" / "volumes"))


def _end(program: subprocess.Popen[bytes]) -> None:
    program.terminate()
    try:
        program.wait(20)
    except subprocess.TimeoutExpired:
        program.kill()
        program.wait()
