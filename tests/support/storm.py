"""Pods that live while the daemon, the monitors and the launcher are killed at random moments, and what must be true."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from cni_plugins.ipam.host_local.leases import list_leases
from cri.api.v1 import api_pb2 as api
from cri.api.v1 import api_pb2_grpc
from e2e.wait import wait_for
from runtime_core.kernel import mounts, netlink
from runtime_core.network.links import Links
from trivet.demo.node import DemoNode

_Code = grpc.StatusCode
_CALLERS = 6
#: seconds for which a caller tries again, as a kubelet does
_PATIENCE = 60.0
_AGAIN = {_Code.UNAVAILABLE, _Code.CANCELLED}
_LINE = re.compile(r"[0-9T:.-]+Z stdout F line ([0-9]+)")


@dataclass
class Life:
    """One pod's container: what it was told to do."""

    name: str
    pod: str
    container: str
    lines: int
    code: int
    log: Path
    truth: Path


@dataclass
class Storm:
    """One storm over one node, which is started already and has the image `reference`.

    `seed` decides what is done and who is killed, not when the machine gets to it. `problems` says what was not true.
    """

    node: DemoNode
    reference: str
    seed: int
    seconds: float
    problems: list[str] = field(default_factory=list)
    verdicts: Counter[str] = field(default_factory=Counter)
    #: pods whose monitor was killed
    struck: set[str] = field(default_factory=set)

    def run(self) -> None:
        """Blow for `seconds`, end every pod, compare."""
        self._ended = threading.Event()
        self._truths = self.node.directory / "truths"
        self._truths.mkdir(exist_ok=True)
        deadline = time.monotonic() + self.seconds
        with ThreadPoolExecutor(_CALLERS + 1) as pool:
            killer = pool.submit(self._strike_until_ended)
            callers = [pool.submit(self._call_until, deadline, number) for number in range(_CALLERS)]
            try:
                for caller in callers:
                    caller.result()
            finally:
                self._ended.set()
            killer.result()
        caller = Caller(self, random.Random(self.seed))
        for pod in caller.runtime.ListPodSandbox(api.ListPodSandboxRequest()).items:
            caller.end(pod.id)
        caller.close()
        deadline = time.monotonic() + 20
        while left(self.node) and time.monotonic() < deadline:
            time.sleep(0.1)  # who was killed is still leaving
        self.problems += left(self.node)

    def _call_until(self, deadline: float, number: int) -> None:
        chance = random.Random(f"{self.seed} {number}")
        caller = Caller(self, chance)
        lived = 0
        while time.monotonic() < deadline:
            lived += 1
            try:
                caller.live(f"storm{self.seed}-{number}-{lived}")
            except AssertionError as error:
                self.problems.append(f"storm{self.seed}-{number}-{lived}: {error}")
        caller.close()

    # -- strikes

    def _strike_until_ended(self) -> None:
        chance = random.Random(f"{self.seed} strikes")
        strikes = [self._strike_daemon, self._strike_monitor, self._strike_monitor, self._strike_launcher]
        while not self._ended.wait(chance.uniform(0.05, 1.5)):
            chance.choice(strikes)(chance)

    def _strike_daemon(self, _chance: random.Random) -> None:
        self.verdicts["daemon killed"] += 1
        self.node.kill()
        self.node.start()

    def _strike_monitor(self, chance: random.Random) -> None:
        found = monitors(self.node)
        if found:
            pod = chance.choice(sorted(found))
            self.struck.add(pod)
            self.verdicts["monitor killed"] += 1
            _kill(found[pod])

    def _strike_launcher(self, _chance: random.Random) -> None:
        for pid in launchers(self.node):
            self.verdicts["launcher killed"] += 1
            _kill(pid)


class Caller:
    """One client, which does with its pods what a kubelet does."""

    def __init__(self, storm: Storm, chance: random.Random) -> None:
        self.storm, self.node, self.chance = storm, storm.node, chance
        options = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200)]
        self._channel = grpc.insecure_channel(f"unix://{self.node.directory}/cri.sock", options=options)
        self.runtime: Any = api_pb2_grpc.RuntimeServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        self._channel.close()

    def live(self, name: str) -> None:
        """A pod with a container that ends by itself or is stopped; AssertionError for what is not as it must be."""
        config = self._pod_config(name)
        try:
            pod = self._pod(config)
            if pod:
                self._containers(name, pod, config)
        finally:
            for left_over in self._named(name):
                self.end(left_over)

    def end(self, pod: str) -> None:
        """Stop and remove, until it is gone."""
        self._again(lambda: self.runtime.StopPodSandbox(api.StopPodSandboxRequest(pod_sandbox_id=pod), timeout=60))
        self._again(lambda: self.runtime.RemovePodSandbox(api.RemovePodSandboxRequest(pod_sandbox_id=pod), timeout=60))

    # -- steps

    def _pod(self, config: Any) -> str:
        """Its id, or "" when it was struck while it was opened."""
        request = api.RunPodSandboxRequest(config=config)
        answer = self._again(lambda: self.runtime.RunPodSandbox(request, timeout=60), may=(_Code.ALREADY_EXISTS,))
        return str(answer.pod_sandbox_id) if answer else ""

    def _containers(self, name: str, pod: str, config: Any) -> None:
        for number in range(self.chance.randint(1, 3)):
            life = self._container(f"{name}-{number}", pod, config)
            if life is None:
                break
            self._use(life)
            self._judge(life, self._status_at_end(life))
        if pod in self.storm.struck:
            wait_for(f"pod {pod} to be not ready", lambda: not self._is_ready(pod), 20)

    def _container(self, name: str, pod: str, config: Any) -> Life | None:
        life = Life(
            name, pod, "", self.chance.choice([0, 1, 20, 300]), self.chance.choice([0, 1, 3, 77]),
            self.node.directory / "logs" / f"{name}.log", self.storm._truths / name,
        )  # fmt: skip
        container = api.ContainerConfig(
            metadata=api.ContainerMetadata(name=name),
            image=api.ImageSpec(image=self.storm.reference),
            command=["sh", "-c", self._script(life)],
            log_path=life.log.name,
            mounts=[api.Mount(host_path=str(self.storm._truths), container_path="/truths")],
        )
        request = api.CreateContainerRequest(pod_sandbox_id=pod, config=container, sandbox_config=config)
        lost = (_Code.FAILED_PRECONDITION, _Code.NOT_FOUND)
        answer = self._again(lambda: self.runtime.CreateContainer(request, timeout=60), may=lost)
        if not answer:
            assert pod in self.storm.struck, f"pod {pod} is refused, and nobody killed its monitor"
            return None
        life.container = answer.container_id
        start = api.StartContainerRequest(container_id=life.container)
        # FAILED_PRECONDITION: it was started by the call whose answer was lost, or its pod was struck.
        self._again(lambda: self.runtime.StartContainer(start, timeout=60), may=lost)
        return life

    def _script(self, life: Life) -> str:
        """Lines as fast as it can or with pauses, then the truth that no runtime can lose, then the code."""
        pause = self.chance.choice(["", "", "[ $((i % 7)) -ne 0 ] || sleep 0.01; "])
        lines = f"i=0; while [ $i -lt {life.lines} ]; do i=$((i+1)); {pause}echo line $i; done; "
        return f"{lines}echo {life.code} > /truths/{life.name}; exit {life.code}"

    def _use(self, life: Life) -> None:
        """A command beside it, as a probe is."""
        request = api.ExecSyncRequest(container_id=life.container, cmd=["echo", "probe"], timeout=20)
        answer = self._again(lambda: self.runtime.ExecSync(request, timeout=60), may=(_Code.FAILED_PRECONDITION, _Code.NOT_FOUND))
        # 137 and nothing: the container ended and took the command along.
        assert not answer or answer.stdout == b"probe\n" or answer.exit_code != 0, f"ExecSync said {answer.stdout!r}"

    def _status_at_end(self, life: Life) -> Any:
        request = api.ContainerStatusRequest(container_id=life.container)
        found: list[Any] = []

        def ended() -> bool:
            answer = self._again(lambda: self.runtime.ContainerStatus(request, timeout=20))
            found[:] = [answer.status]
            return bool(answer.status.state == api.CONTAINER_EXITED)

        wait_for(f"the end of {life.container}", ended, 40)
        return found[0]

    def _judge(self, life: Life, status: Any) -> None:
        """Against what the program itself has written down, and who was killed."""
        self.storm.verdicts[f"ended with {'its code' if status.exit_code == life.code else status.exit_code}"] += 1
        lines = [_LINE.fullmatch(line) for line in life.log.read_text().splitlines()] if life.log.exists() else []
        numbers = [int(line[1]) for line in lines if line]
        what = f"{life.name} with code {life.code} in pod {life.pod}: {status.exit_code} {status.reason} {status.message!r}"
        assert len(numbers) == len(lines), f"{what}: the log has lines that nobody wrote"
        assert numbers == [*range(1, len(numbers) + 1)], f"{what}: lines are missing or out of order"
        if life.pod in self.storm.struck:
            assert status.exit_code in (life.code, 137), what
        else:
            assert (status.exit_code, len(numbers)) == (life.code, life.lines), f"{what}: {len(numbers)} of {life.lines} lines"
        if status.exit_code == life.code:
            assert life.truth.exists(), f"{what}: it never came to its end"

    # -- asking

    def _again(self, call: Callable[[], Any], *, may: tuple[grpc.StatusCode, ...] = ()) -> Any:
        """The answer of `call`, made again while the daemon is away; None when it was refused with a code in `may`."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                return call()
            except grpc.RpcError as error:
                code, details = error.code(), error.details()
            self.storm.verdicts[code.name] += 1
            if code in may:
                return None
            assert code in _AGAIN, f"{code.name}: {details}"
            assert time.monotonic() < deadline, f"{code.name} for {_PATIENCE} s: {details}"
            time.sleep(0.05)

    def _named(self, name: str) -> list[str]:
        items = self._again(lambda: self.runtime.ListPodSandbox(api.ListPodSandboxRequest(), timeout=20)).items
        return [pod.id for pod in items if pod.metadata.name == name]

    def _is_ready(self, pod: str) -> bool:
        items = self._again(lambda: self.runtime.ListPodSandbox(api.ListPodSandboxRequest(), timeout=20)).items
        return any(item.id == pod and item.state == api.SANDBOX_READY for item in items)

    def _pod_config(self, name: str) -> Any:
        shared = api.LinuxSandboxSecurityContext(namespace_options=api.NamespaceOption(pid=api.POD))
        return api.PodSandboxConfig(
            metadata=api.PodSandboxMetadata(name=name, uid=name, namespace="storm"),
            log_directory=str(self.node.directory / "logs"),
            linux=api.LinuxPodSandboxConfig(
                cgroup_parent=f"{self.node.cgroup}/{name}",
                security_context=shared if self.chance.random() < 0.3 else None,
            ),
        )


def monitors(node: DemoNode) -> dict[str, int]:
    """Pod → PID of its monitor, which works in the pod's directory."""
    below = f"{node.directory}/state/pods/"
    found = {}
    for pid, name in _processes():
        if name == "trivet-monitor":
            with contextlib.suppress(OSError):
                directory = os.readlink(f"/proc/{pid}/cwd")
                if directory.startswith(below):
                    found[directory.removeprefix(below)] = pid
    return found


def launchers(node: DemoNode) -> list[int]:
    """Children of the node's daemon."""
    daemon = node.pid
    return [pid for pid, name in _processes() if name == "trivet-launcher" and _parent(pid) == daemon]


def left(node: DemoNode) -> list[str]:
    """What is there although no pod is: processes, mounts, namespaces, cgroups, leases, links, records, directories."""
    found = [f"monitor of {pod}" for pod in monitors(node)]
    for part in ("state/pods", "state/netns", "root/cni", "root/overlayfs/snapshots", "root/overlayfs/stage"):
        path = node.directory / part
        found += [f"{part}/{name}" for name in os.listdir(path)] if path.exists() else []
    found += [f"mount {point}" for point in mounts.mounted_below(str(node.directory / "state"))]
    found += [f"address {lease.address}" for lease in list_leases(str(node.directory / "ipam"))]
    for hierarchy in Path("/sys/fs/cgroup").iterdir():
        if Path(f"{hierarchy}{node.cgroup}").is_dir():
            found.append(f"cgroup {hierarchy}{node.cgroup}")
    with netlink.Socket() as sock:
        links = Links(sock)
        bridge = links.find(node.bridge)
        found += [f"link {link.name}" for link in links.all() if bridge and link.master == bridge.index]
    with contextlib.closing(sqlite3.connect(f"file:{node.directory}/root/state.db?mode=ro", uri=True)) as database:
        found += [f"ledger {row}" for row in database.execute("SELECT owner, kind, reference FROM ledger")]
        wanted = "SELECT kind, id FROM records WHERE kind IN ('sandbox', 'container')"
        found += [f"record {row}" for row in database.execute(wanted)]
    return found


def _processes() -> Iterator[tuple[int, str]]:
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            yield int(name), Path(f"/proc/{name}/comm").read_text().strip()


def _parent(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
