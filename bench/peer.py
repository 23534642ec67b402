"""The two runtimes of a comparison: started on private directories, measured from outside, ended with all they have."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import grpc

from cri.api.v1 import api_pb2 as api
from cri.api.v1 import api_pb2_grpc
from e2e.peers.build import build
from e2e.wait import wait_for
from runtime_core.kernel import mounts
from trivet.demo.node import DemoNode

_PLUGINS = ("bridge", "host-local", "loopback", "portmap")


class Peer:
    """A runtime with a CRI socket."""

    name = ""

    def __init__(self, endpoint: str, directory: Path) -> None:
        self.directory = directory
        self._channel = grpc.insecure_channel(endpoint)
        self.runtime: Any = api_pb2_grpc.RuntimeServiceStub(self._channel)
        self.images: Any = api_pb2_grpc.ImageServiceStub(self._channel)
        self.cgroup = f"/trivet-bench-{self.name}-{os.getpid()}"
        (directory / "bench-logs").mkdir()

    def programs(self) -> list[int]:
        """PIDs of the daemon and what it needs with no pod."""
        raise NotImplementedError

    def helpers(self) -> list[int]:
        """PIDs of what it has per pod beside the containers."""
        raise NotImplementedError

    def close(self) -> None:
        for pod in self.runtime.ListPodSandbox(api.ListPodSandboxRequest()).items:
            self.runtime.StopPodSandbox(api.StopPodSandboxRequest(pod_sandbox_id=pod.id))
            self.runtime.RemovePodSandbox(api.RemovePodSandboxRequest(pod_sandbox_id=pod.id))
        self._channel.close()


class Trivet(Peer):
    name = "trivet"

    def __init__(self) -> None:
        self._node = DemoNode()
        started = time.monotonic()
        self._node.start()
        super().__init__(f"unix://{self._node.directory}/cri.sock", self._node.directory)
        self.runtime.Version(api.VersionRequest())
        self.start_seconds = time.monotonic() - started

    def programs(self) -> list[int]:
        daemon = [pid for pid, command in commands() if f"unix://{self.directory}/cri.sock" in command]
        return daemon + [pid for pid in named("trivet-launcher") if parent(pid) in daemon]

    def helpers(self) -> list[int]:
        launchers = set(self.programs())
        monitors = [pid for pid in named("trivet-monitor") if parent(pid) in launchers]
        return monitors + [pid for pid in named("trivet-pause") if parent(pid) in monitors]

    def close(self) -> None:
        super().close()
        self._node.close()


class Containerd(Peer):
    name = "containerd"

    def __init__(self) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="bench-containerd-"))
        (self._home / "bin").mkdir()
        for program in ("containerd", "containerd-shim-runc-v2", "runc", *_PLUGINS):
            (self._home / "bin" / program).symlink_to(build(program))
        (self._home / "cni").mkdir()
        (self._home / "cni" / "10-bench.conflist").write_text(json.dumps(self._network()))
        (self._home / "config.toml").write_text(self._config())
        self._log = (self._home / "log").open("wb")
        started = time.monotonic()
        path = f"{self._home}/bin:{os.environ['PATH']}"
        self._process = subprocess.Popen(
            [str(self._home / "bin" / "containerd"), "--config", str(self._home / "config.toml")],
            stdout=self._log, stderr=self._log, env={**os.environ, "PATH": path},
        )  # fmt: skip
        super().__init__(f"unix://{self._home}/c.sock", self._home)
        wait_for("containerd", self._answers, 30)
        self.start_seconds = time.monotonic() - started

    def programs(self) -> list[int]:
        return [self._process.pid]

    def helpers(self) -> list[int]:
        shims = [pid for pid, command in commands() if str(self._home) in command and "containerd-shim" in command]
        pauses = [pid for pid in named("pause") + named("sleep") if parent(pid) in shims and is_sandbox(pid)]
        return shims + pauses

    def close(self) -> None:
        super().close()
        self._process.terminate()
        self._process.wait(30)
        self._log.close()
        subprocess.run(["ip", "link", "delete", "bench-ctd0"], check=False, capture_output=True)
        mounts.unmount_below(str(self._home))
        shutil.rmtree(self._home)
        for hierarchy in Path("/sys/fs/cgroup").iterdir():  # containerd leaves the parents that it was given
            for directory, _names, _files in os.walk(f"{hierarchy}{self.cgroup}", topdown=False):
                os.rmdir(directory)

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self._home / "log").read_text()[-2000:]
        try:
            return bool(self.runtime.Status(api.StatusRequest()).status.conditions[0].status)
        except grpc.RpcError:
            return False

    def _network(self) -> dict[str, Any]:
        ipam = {
            "type": "host-local",
            "dataDir": str(self._home / "ipam"),
            "ranges": [[{"subnet": "10.232.0.0/16"}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        }
        bridge = {"type": "bridge", "bridge": "bench-ctd0", "isGateway": True, "ipMasq": True, "ipam": ipam}
        portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
        return {"cniVersion": "1.0.0", "name": "bench", "plugins": [bridge, portmap]}

    def _config(self) -> str:
        home = self._home
        return f"""
version = 3
root = "{home}/root"
state = "{home}/state"
[grpc]
  address = "{home}/c.sock"
[ttrpc]
  address = "{home}/t.sock"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["{home}/bin"]
    conf_dir = "{home}/cni"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "{os.environ.get("TRIVET_BENCH_PAUSE", "")}"
"""


def commands() -> Iterable[tuple[int, str]]:
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            yield int(name), Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue


def named(comm: str) -> list[int]:
    found = []
    for pid, _command in commands():
        try:
            if Path(f"/proc/{pid}/comm").read_text().strip() == comm:
                found.append(pid)
        except OSError:
            continue
    return found


def parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def is_sandbox(pid: int) -> bool:
    """The pause container of the benchmark sleeps for this long."""
    return b"86399" in Path(f"/proc/{pid}/cmdline").read_bytes()


def pss_kib(pids: Iterable[int]) -> int:
    total = 0
    for pid in pids:
        try:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        except OSError:
            continue
    return total
