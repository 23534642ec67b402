"""A daemon on private directories, which can be killed and started again, and leaves nothing behind."""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import grpc

from cri.api.v1 import api_pb2 as api
from cri.api.v1 import api_pb2_grpc
from runtime_core.errors import Unavailable
from runtime_core.kernel import mounts, netlink
from runtime_core.network.links import Links

_START_SECONDS = 30


class DemoNode:
    """A trivet-cri on private directories, with a network of its own."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="trivet-demo-"))
        self.bridge = f"trv{os.getpid() % 100000}"
        self.cgroup = f"/trivet-demo-{os.getpid()}"
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: grpc.Channel | None = None
        (self.directory / "cni").mkdir()
        (self.directory / "cni" / "10-demo.conflist").write_text(json.dumps(self._network()))

    def start(self, *options: str) -> None:
        """Start the daemon and wait for its ready line; Unavailable with its last words when there is none."""
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable, "-m", "cri", "serve", "--listen", f"unix://{self.directory}/cri.sock",
                    "--root", str(self.directory / "root"), "--state", str(self.directory / "state"),
                    "--cni-conf-dir", str(self.directory / "cni"), "--cni-bin-dir", str(self.directory / "bin"),
                    "--registry-dir", str(self.directory / "registries"), *options,
                ],
                stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip
        assert self._process.stdout is not None
        if b"ready" not in self._process.stdout.readline():
            raise Unavailable(f"the daemon did not start: {(self.directory / 'log').read_text()[-1000:]}")

    @property
    def pid(self) -> int:
        """Of the daemon; 0 when there is none."""
        return self._process.pid if self._process is not None else 0

    def kill(self) -> None:
        """kill -9 the daemon."""
        self._end(signal.SIGKILL)

    def runtime(self) -> Any:
        """A stub of the RuntimeService."""
        return api_pb2_grpc.RuntimeServiceStub(self.channel())  # type: ignore[no-untyped-call]

    def images(self) -> Any:
        """A stub of the ImageService."""
        return api_pb2_grpc.ImageServiceStub(self.channel())  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Remove every pod, end the daemon, and take away bridge, cgroups and directories."""
        if self._process is not None and self._process.poll() is not None:
            self._forget()
            self.start()  # its pods outlive it, and only a daemon can end them
        if self._process is not None:
            runtime = self.runtime()
            for pod in runtime.ListPodSandbox(api.ListPodSandboxRequest()).items:
                runtime.RemovePodSandbox(api.RemovePodSandboxRequest(pod_sandbox_id=pod.id))
            self._end(signal.SIGTERM)
        with netlink.Socket() as sock:
            Links(sock).remove(self.bridge)
        mounts.unmount_below(str(self.directory))
        shutil.rmtree(self.directory)

    def _end(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(_START_SECONDS)
        self._forget()

    def _forget(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        self._process.stdout.close()
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def channel(self) -> grpc.Channel:
        """The one connection to the daemon that runs now."""
        if self._channel is None:
            self._channel = grpc.insecure_channel(f"unix://{self.directory}/cri.sock")
        return self._channel

    def _network(self) -> dict[str, Any]:
        bridge = {
            "type": "bridge",
            "bridge": self.bridge,
            "isGateway": True,
            "ipMasq": True,
            "ipam": {
                "type": "host-local",
                "dataDir": str(self.directory / "ipam"),
                "ranges": [[{"subnet": _unused_subnet()}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
        return {"cniVersion": "1.0.0", "name": "demo", "plugins": [bridge]}


def _unused_subnet() -> str:
    """A /24 of 10.200.0.0/13 that overlaps no address of this host; another one for each process, as several may look at once."""
    with netlink.Socket() as sock:
        links = Links(sock)
        taken = [ipaddress.ip_interface(a).network for link in links.all() for a in links.addresses(link.index)]
    candidates = list(ipaddress.IPv4Network("10.200.0.0/13").subnets(new_prefix=24))
    first = os.getpid() % len(candidates)
    for candidate in candidates[first:] + candidates[:first]:
        if not any(network.version == 4 and network.overlaps(candidate) for network in taken):
            return str(candidate)
    raise Unavailable("no subnet of 10.200.0.0/13 is free on this host")
