"""The contract suite of `trivet.runtime`; who writes a driver subclasses it and overrides `make_runtime`.

    class TestMine(RuntimeContract):
        @pytest.fixture
        def make_runtime(self):
            return Mine

The suite brings a real launcher, the machine's cgroup driver, and a root file system that is a static busybox.
Override `preload` with the modules that your launcher jobs need, `image` with another root that has /bin/sh.
"""

from __future__ import annotations

import json
import os
import queue
import secrets
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runtime_core.cgroups.detect import detected
from runtime_core.errors import (
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    TrivetError,
)
from runtime_core.interfaces.runtime import ContainerExit, ContainerSpec, PodLost, PodSpec, RootMount, Runtime, RuntimeContext
from runtime_core.kernel import entry_point, mounts
from runtime_core.kernel.decimal_number import parse_decimal
from runtime_core.launcher.client import Launcher
from runtime_core.registry import locate
from runtime_core.testing.tools import need

_SECONDS = 20.0
_MOST_OUTPUT = 16 * 1024 * 1024
_APPLETS = ("sh", "cat", "echo", "sleep", "true", "hostname", "readlink", "yes", "head", "touch", "ls", "kill", "pwd")
_FOREVER = "sleep 1000"
MakeRuntime = Callable[[RuntimeContext], Runtime]


class Bench:
    """One driver object, what it told, and short words for pods and containers; `close` leaves nothing."""

    def __init__(self, make: MakeRuntime, launcher: Launcher, cgroups: str, directory: Path, image: Path) -> None:
        self._make, self._launcher, self._cgroup_entry = make, launcher, cgroups
        self.directory, self.image = directory, image
        self.cgroups = entry_point.load(cgroups)()
        self.cgroup = f"/trivet-contract-{secrets.token_hex(4)}"
        self.ends: queue.Queue[ContainerExit] = queue.Queue()
        self.lost: queue.Queue[str] = queue.Queue()
        self.runtime = self.another(self.ends, self.lost)
        self.pods: list[PodSpec] = []

    def another(self, ends: Any, lost: Any) -> Runtime:
        """A driver object more, as the next daemon has it; it tells to `ends` and `lost`, which are queues."""
        return self._make(
            RuntimeContext(
                launcher=self._launcher, cgroup_manager=self._cgroup_entry, on_exit=ends.put, on_pod_lost=lost.put,
                directory=str(self.directory / "runtime"),
            )
        )  # fmt: skip

    def spec(self, **fields: Any) -> PodSpec:
        """A pod that is not opened; `close` closes it all the same."""
        pod_id = secrets.token_hex(32)
        pod = PodSpec(
            id=pod_id, directory=str(self.directory / "pods" / pod_id[:8]), hostname="contract",
            netns_path=str(self.directory / "netns" / pod_id[:8]), **fields,
        )  # fmt: skip
        if pod.pid_mode == "pod":
            pod = replace(pod, cgroup_path=f"{self.cgroup}/{pod_id}")
        self.pods.append(pod)
        return pod

    def pod(self, **fields: Any) -> PodSpec:
        pod = self.spec(**fields)
        self.runtime.open_pod(pod)
        return pod

    def container(self, pod: PodSpec, script: str, **fields: Any) -> ContainerSpec:
        """A container that is not created; /data is the bench's own directory `data`."""
        container_id = secrets.token_hex(32)
        snapshot = self.directory / "snapshots" / container_id[:8]
        for name in ("upper", "work"):
            (snapshot / name).mkdir(parents=True)
        (self.directory / "data").mkdir(exist_ok=True)
        root = RootMount(type="overlay", lower=[str(self.image)], upper=str(snapshot / "upper"), work=str(snapshot / "work"))
        spec = _oci_spec(script, f"{self.cgroup}/{container_id}", str(self.directory / "data"))
        fields = {"id": container_id, "pod_id": pod.id, "spec": spec, "root": root, **fields}
        return ContainerSpec(**fields)

    def run(self, pod: PodSpec, script: str, **fields: Any) -> str:
        container = self.container(pod, script, **fields)
        self.runtime.create(container)
        self.runtime.start(pod.id, container.id)
        return container.id

    def data(self, name: str) -> str:
        """The content of a file that a container writes to /data, once it is there."""
        path = self.directory / "data" / name
        _until(f"/data/{name}", lambda: path.exists() and path.read_text().endswith("\n"))
        return path.read_text().strip()

    def exec(self, pod: PodSpec, container_id: str, script: str, timeout: float | None = _SECONDS) -> Any:
        process = {**_process(["/bin/sh", "-c", script])}
        return self.runtime.exec_sync(pod.id, container_id, process, timeout)

    def close(self) -> None:
        for pod in self.pods:
            self.runtime.close_pod(pod)
        self.cgroups.destroy(self.cgroup)


class RuntimeContract:
    @pytest.fixture
    def make_runtime(self) -> MakeRuntime:
        """What makes a driver object of a RuntimeContext: its class."""
        raise NotImplementedError("override make_runtime")

    @pytest.fixture
    def cgroup_manager(self) -> str:
        return locate("cgroup", detected())

    @pytest.fixture
    def preload(self, cgroup_manager: str) -> list[str]:
        return ["runtime_core.monitor.server", cgroup_manager.partition(":")[0]]

    @pytest.fixture
    def launcher(self, preload: list[str]) -> Iterator[Launcher]:
        launcher = Launcher.start(preload)
        yield launcher
        launcher.close()

    @pytest.fixture
    def image(self, tmp_path: Path) -> Path:
        busybox = need("busybox", "busybox-static")
        image = tmp_path / "image"
        for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "data"):
            (image / name).mkdir(parents=True)
        shutil.copy(busybox, image / "bin" / "busybox")
        for name in _APPLETS:
            (image / "bin" / name).symlink_to("busybox")
        return image

    @pytest.fixture
    def bench(
        self, make_runtime: MakeRuntime, launcher: Launcher, cgroup_manager: str, image: Path, tmp_path: Path
    ) -> Iterator[Bench]:
        """And the promise that closing its pods leaves neither a mount nor a cgroup nor a process."""
        bench = Bench(make_runtime, launcher, cgroup_manager, tmp_path, image)
        yield bench
        bench.close()
        assert mounts.mounted_below(str(tmp_path)) == []
        assert not bench.cgroups.exists(bench.cgroup)
        _until("the end of the pods' processes", lambda: _mentioning(str(tmp_path)) == [])

    # -- pods

    def test_open_pod_gives_living_processes(self, bench: Bench) -> None:
        """The monitor's PID, and that of the pod's own PID 1 where it has one."""
        monitor, init = bench.runtime.open_pod(bench.spec())
        assert (_is_alive(monitor), init) == (True, 0)
        monitor, init = bench.runtime.open_pod(bench.spec(pid_mode="pod"))
        assert _is_alive(monitor) and _is_alive(init)

    def test_open_pod_pins_a_network_namespace_of_its_own(self, bench: Bench) -> None:
        """Under the name that was asked for, with lo up and nothing else: not the node's."""
        one, other = bench.pod(), bench.pod()
        inodes = {os.stat(path).st_ino for path in (one.netns_path, other.netns_path, "/proc/self/ns/net")}
        assert len(inodes) == 3

    def test_a_failed_open_leaves_nothing(self, bench: Bench) -> None:
        """Here a sysctl that does not exist: no namespace is pinned and no process runs."""
        spec = bench.spec(sysctls={"net.ipv4.no_such_thing": "1"})
        with pytest.raises(TrivetError, match="no_such_thing"):
            bench.runtime.open_pod(spec)
        assert not os.path.exists(spec.netns_path)
        _until("the end of its processes", lambda: _mentioning(spec.directory) == [])

    def test_close_pod_ends_everything_and_twice(self, bench: Bench) -> None:
        """Monitor, containers, pin and directory are gone; the second one succeeds."""
        spec = bench.spec(pid_mode="pod")
        monitor, init = bench.runtime.open_pod(spec)
        bench.run(spec, _FOREVER)
        for _time in range(2):
            bench.runtime.close_pod(spec)
            _until("the end of the processes", lambda: not _is_alive(monitor) and not _is_alive(init))
            assert not os.path.exists(spec.netns_path)
            assert not os.path.exists(spec.directory)
        assert bench.lost.empty(), "a pod that was closed is not lost"

    def test_a_pod_that_was_never_opened_can_be_closed(self, bench: Bench) -> None:
        """It is closed already."""
        bench.runtime.close_pod(bench.spec())

    def test_containers_of_a_pod_share_its_namespaces(self, bench: Bench) -> None:
        """Network, IPC and UTS with the pod's host name; each has its own PID and mount namespace."""
        pod = bench.pod()
        show = "for kind in net ipc uts pid mnt; do readlink /proc/self/ns/$kind; done; hostname"
        shown = [bench.exec(pod, bench.run(pod, _FOREVER), show).stdout.split() for _number in range(2)]
        assert shown[0][:3] == shown[1][:3]
        assert os.fsencode(os.readlink("/proc/self/ns/net")) not in shown[0]
        assert shown[0][3] != shown[1][3] and shown[0][4] != shown[1][4]
        assert shown[0][5] == b"contract"

    # -- a container's life

    def test_create_does_not_run_the_program(self, bench: Bench) -> None:
        """`start` does, and says when."""
        pod = bench.pod()
        container = bench.container(pod, f"echo ran > /data/ran; {_FOREVER}")
        assert _is_alive(bench.runtime.create(container))
        assert os.listdir(bench.directory / "data") == []
        before = time.time_ns()
        started = bench.runtime.start(pod.id, container.id)
        assert before <= started <= time.time_ns()
        assert bench.data("ran") == "ran"

    @pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("sh -c 'kill -9 $$'; exit $?", 137)])
    def test_the_end_is_told_once(self, bench: Bench, script: str, code: int) -> None:
        """With the program's own code, 128 + signal when a signal ended it, and the time."""
        pod = bench.pod()
        container_id = bench.run(pod, script)
        end = bench.ends.get(timeout=_SECONDS)
        assert (end.pod_id, end.container_id, end.exit_code, end.oom_killed) == (pod.id, container_id, code, False)
        assert 0 <= time.time_ns() - end.finished_at < _SECONDS * 1e9
        bench.runtime.delete(pod.id, container_id)
        bench.runtime.close_pod(pod)
        assert bench.ends.empty()

    def test_a_program_that_is_not_there(self, bench: Bench) -> None:
        """start raises with what exec(2) said; the container can be deleted."""
        pod = bench.pod()
        container = bench.container(pod, "")
        container.spec["process"]["args"] = ["/bin/no-such-program"]
        with pytest.raises(TrivetError, match=r"no-such-program|No such file"):
            bench.runtime.create(container)
            bench.runtime.start(pod.id, container.id)
        bench.runtime.delete(pod.id, container.id)

    def test_an_id_is_taken_once(self, bench: Bench) -> None:
        """AlreadyExists, and the first container runs on."""
        pod = bench.pod()
        container_id = bench.run(pod, _FOREVER)
        with pytest.raises(AlreadyExists):
            bench.runtime.create(bench.container(pod, _FOREVER, id=container_id))
        assert bench.exec(pod, container_id, "echo alive").stdout == b"alive\n"

    def test_start_twice(self, bench: Bench) -> None:
        """FailedPrecondition, and the container runs on."""
        pod = bench.pod()
        container_id = bench.run(pod, _FOREVER)
        with pytest.raises(FailedPrecondition):
            bench.runtime.start(pod.id, container_id)
        assert bench.exec(pod, container_id, "echo alive").stdout == b"alive\n"

    def test_kill_sends_the_signal(self, bench: Bench) -> None:
        """To the init, which may handle it; SIGKILL it cannot."""
        pod = bench.pod()
        polite = bench.run(pod, f"trap 'exit 9' TERM; echo set > /data/trap; {_FOREVER} & wait")
        assert bench.data("trap") == "set"
        bench.runtime.kill(pod.id, polite, signal.SIGTERM)
        assert bench.ends.get(timeout=_SECONDS).exit_code == 9
        rude = bench.run(pod, _FOREVER)
        bench.runtime.kill(pod.id, rude, signal.SIGKILL)
        assert bench.ends.get(timeout=_SECONDS).exit_code == 137

    def test_kill_everything(self, bench: Bench) -> None:
        """Every process of the container, also one that left the session."""
        pod = bench.pod()
        container_id = bench.run(pod, f"{_FOREVER} & {_FOREVER}")
        path = f"{bench.cgroup}/{container_id}"
        _until("two processes or more", lambda: len(bench.cgroups.processes(path)) >= 2)
        bench.runtime.kill(pod.id, container_id, signal.SIGKILL, everything=True)
        assert bench.ends.get(timeout=_SECONDS).exit_code == 137
        _until("no process", lambda: bench.cgroups.processes(path) == [])

    def test_kill_of_the_dead_and_of_the_unknown(self, bench: Bench) -> None:
        """No error for a container that has ended; NotFound for one that never was; InvalidArgument for no signal."""
        pod = bench.pod()
        container_id = bench.run(pod, "exit 0")
        bench.ends.get(timeout=_SECONDS)
        bench.runtime.kill(pod.id, container_id, signal.SIGTERM)
        bench.runtime.kill(pod.id, container_id, signal.SIGKILL, everything=True)
        with pytest.raises(NotFound):
            bench.runtime.kill(pod.id, "never-was", signal.SIGTERM)
        running = bench.run(pod, _FOREVER)
        with pytest.raises(InvalidArgument):
            bench.runtime.kill(pod.id, running, 4711)

    def test_delete_forgets_and_twice(self, bench: Bench) -> None:
        """A container that runs is killed; its cgroup is gone, and its id is free."""
        pod = bench.pod()
        container_id = bench.run(pod, _FOREVER)
        for _time in range(2):
            bench.runtime.delete(pod.id, container_id)
            assert not bench.cgroups.exists(f"{bench.cgroup}/{container_id}")
        bench.run(pod, _FOREVER, id=container_id)

    # -- exec, update, logs

    def test_exec_sync_separates_streams_and_gives_the_code(self, bench: Bench) -> None:
        """In the container's own root and namespaces."""
        pod = bench.pod()
        container_id = bench.run(pod, f"touch /inside; {_FOREVER}")
        result = bench.exec(pod, container_id, "ls /inside; echo to-err >&2; exit 5")
        assert (result.exit_code, result.stdout, result.stderr) == (5, b"/inside\n", b"to-err\n")

    def test_exec_sync_cuts_the_output(self, bench: Bench) -> None:
        """At 16 MiB of each stream; the command ends all the same."""
        pod = bench.pod()
        container_id = bench.run(pod, _FOREVER)
        result = bench.exec(pod, container_id, f"yes | head -c {_MOST_OUTPUT + 100_000}; exit 3")
        assert (result.exit_code, len(result.stdout)) == (3, _MOST_OUTPUT)

    def test_exec_sync_that_takes_too_long(self, bench: Bench) -> None:
        """DeadlineExceeded; its whole tree is killed, and the container runs on."""
        pod = bench.pod()
        container_id = bench.run(pod, _FOREVER)
        path = f"{bench.cgroup}/{container_id}"
        before = set(bench.cgroups.processes(path))
        with pytest.raises(DeadlineExceeded):
            bench.exec(pod, container_id, f"{_FOREVER} & {_FOREVER}", 0.5)
        _until("the end of the command", lambda: set(bench.cgroups.processes(path)) == before)
        assert bench.exec(pod, container_id, "echo alive").stdout == b"alive\n"

    def test_exec_sync_needs_a_running_container(self, bench: Bench) -> None:
        """FailedPrecondition before it is started and after it has ended; NotFound when it is unknown."""
        pod = bench.pod()
        created = bench.container(pod, _FOREVER)
        bench.runtime.create(created)
        ended = bench.run(pod, "exit 0")
        bench.ends.get(timeout=_SECONDS)
        for container_id in (created.id, ended):
            with pytest.raises(FailedPrecondition):
                bench.exec(pod, container_id, "true")
        with pytest.raises(NotFound):
            bench.exec(pod, "never-was", "true")

    def test_update_changes_limits(self, bench: Bench) -> None:
        """As the cgroup's own statistics show; the container runs on. NotFound when it is unknown."""
        pod = bench.pod()
        container_id = bench.run(pod, _FOREVER)
        bench.runtime.update(pod.id, container_id, {"pids": {"limit": 321}})
        assert bench.cgroups.statistics(f"{bench.cgroup}/{container_id}")["pids_limit"] == 321
        assert bench.exec(pod, container_id, "echo alive").stdout == b"alive\n"
        with pytest.raises(NotFound):
            bench.runtime.update(pod.id, "never-was", {"pids": {"limit": 321}})

    def test_the_log_is_written_and_reopened(self, bench: Bench) -> None:
        """Lines of both streams before the end is told; after reopen_log a new file is written to."""
        pod, log = bench.pod(), bench.directory / "c.log"
        script = "trap 'echo second; exit 0' TERM; echo first; echo wrong >&2; sleep 1000 & wait"
        container_id = bench.run(pod, script, log_path=str(log))
        _until("two lines", lambda: len(log.read_text().splitlines()) == 2)
        assert sorted(line.split(" ", 1)[1] for line in log.read_text().splitlines()) == ["stderr F wrong", "stdout F first"]
        log.rename(log.with_name("rotated"))
        bench.runtime.reopen_log(pod.id, container_id)
        bench.runtime.kill(pod.id, container_id, signal.SIGTERM)
        bench.ends.get(timeout=_SECONDS)
        assert [line.split(" ", 1)[1] for line in log.read_text().splitlines()] == ["stdout F second"]

    # -- the next daemon

    def test_another_object_recovers_the_pod(self, bench: Bench) -> None:
        """It is told of every container in its state, hears of ends from then on, and can do all that the first could."""
        pod = bench.pod()
        created = bench.container(pod, f"echo ran > /data/ran; {_FOREVER}")
        bench.runtime.create(created)
        running = bench.run(pod, _FOREVER)
        ended = bench.run(pod, "exit 4")
        bench.ends.get(timeout=_SECONDS)
        ends: queue.Queue[ContainerExit] = queue.Queue()
        second = bench.another(ends, queue.Queue())
        found = {process.id: process for process in second.recover_pod(pod)}
        assert {key: process.status for key, process in found.items()} == {
            created.id: "created", running: "running", ended: "stopped",
        }  # fmt: skip
        assert _is_alive(found[running].pid) and found[running].started_at > 0
        end = found[ended].exit
        assert end is not None and end.exit_code == 4
        second.start(pod.id, created.id)
        assert bench.data("ran") == "ran"
        second.kill(pod.id, running, signal.SIGKILL)
        assert ends.get(timeout=_SECONDS).container_id == running
        second.close_pod(pod)

    def test_a_dead_monitor_is_told_and_its_containers_with_it(self, bench: Bench) -> None:
        """A container is never without a monitor: the pod is lost, then it is killed, and its end is told."""
        told: list[str] = []
        second = bench.another(_Told(told, "end"), _Told(told, "lost"))
        spec = bench.spec()
        monitor, _init = second.open_pod(spec)
        container = bench.container(spec, _FOREVER)
        second.create(container)
        os.kill(monitor, signal.SIGKILL)
        _until("what is told", lambda: len(told) == 2)
        assert told == ["lost", "end"]
        assert bench.cgroups.processes(f"{bench.cgroup}/{container.id}") == []

    def test_every_container_of_a_dead_monitor_ends(self, bench: Bench) -> None:
        """With the code that its monitor wrote down, or as killed; what is removed then leaves nothing."""
        spec = bench.spec()
        monitor, _init = bench.runtime.open_pod(spec)
        ended = bench.run(spec, "exit 6")
        assert bench.ends.get(timeout=_SECONDS).container_id == ended
        running = {bench.run(spec, _FOREVER) for _number in range(20)}
        os.kill(monitor, signal.SIGKILL)
        assert bench.lost.get(timeout=_SECONDS) == spec.id
        ends = [bench.ends.get(timeout=_SECONDS) for _number in range(21)]
        assert {end.container_id: end.exit_code for end in ends} == {ended: 6, **dict.fromkeys(running, 137)}
        for container_id in (ended, *running):
            bench.runtime.delete(spec.id, container_id)
            assert not bench.cgroups.exists(f"{bench.cgroup}/{container_id}")

    def test_who_cannot_listen_now_is_told_again(self, bench: Bench) -> None:
        """The disk of its records may be full; what other pods tell is heard meanwhile."""
        ends, lost = _Deaf(2), _Deaf(2)
        second = bench.another(ends, lost)
        spec = bench.spec()
        monitor, _init = second.open_pod(spec)
        for script in ("exit 3", _FOREVER):
            container = bench.container(spec, script)
            second.create(container)
            second.start(spec.id, container.id)
        _until("the first end", lambda: [end.exit_code for end in ends.heard] == [3])
        os.kill(monitor, signal.SIGKILL)
        _until("the pod's end", lambda: lost.heard == [spec.id] and ends.heard[-1].exit_code == 137)

    def test_nothing_can_be_done_in_a_lost_pod(self, bench: Bench) -> None:
        """PodLost, which no retry helps; deleting works, and so does a command that was running return."""
        spec = bench.spec()
        monitor, _init = bench.runtime.open_pod(spec)
        container_id = bench.run(spec, _FOREVER)
        with ThreadPoolExecutor(1) as pool:
            command = pool.submit(bench.exec, spec, container_id, f"echo up > /data/up; {_FOREVER}", None)
            assert bench.data("up") == "up"
            os.kill(monitor, signal.SIGKILL)
            with pytest.raises(PodLost):
                command.result(_SECONDS)
        for call in (
            lambda: bench.runtime.create(bench.container(spec, _FOREVER)),
            lambda: bench.runtime.start(spec.id, container_id),
            lambda: bench.runtime.kill(spec.id, container_id, signal.SIGTERM),
            lambda: bench.exec(spec, container_id, "true"),
            lambda: bench.runtime.reopen_log(spec.id, container_id),
        ):
            with pytest.raises(PodLost):
                call()
        bench.ends.get(timeout=_SECONDS)
        assert bench.cgroups.processes(f"{bench.cgroup}/{container_id}") == []
        bench.runtime.delete(spec.id, container_id)
        assert not bench.cgroups.exists(f"{bench.cgroup}/{container_id}")

    def test_a_pod_whose_monitor_died_unseen_is_not_found(self, bench: Bench) -> None:
        """recover_pod raises NotFound, having told how the containers ended; close_pod then works from the PodSpec alone."""
        spec = bench.spec()
        monitor, _init = bench.runtime.open_pod(spec)
        ended = bench.run(spec, "exit 6")
        bench.ends.get(timeout=_SECONDS)
        killed = bench.run(spec, _FOREVER)
        os.kill(monitor, signal.SIGKILL)
        bench.lost.get(timeout=_SECONDS)
        ends: queue.Queue[ContainerExit] = queue.Queue()
        second = bench.another(ends, queue.Queue())
        with pytest.raises(NotFound):
            second.recover_pod(spec)
        told = [ends.get(timeout=_SECONDS) for _number in range(2)]
        assert {end.container_id: end.exit_code for end in told} == {ended: 6, killed: 137}
        second.close_pod(spec)
        assert not os.path.exists(spec.directory)

    def test_features_are_a_document(self, bench: Bench) -> None:
        """JSON, with the versions of the OCI runtime specification that it understands."""
        features = json.loads(json.dumps(bench.runtime.features()))
        assert features["ociVersionMin"] <= features["ociVersionMax"]


class _Told:
    """A queue to all that is told, as far as a driver knows one: only that it was."""

    def __init__(self, told: list[str], what: str) -> None:
        self._told, self._what = told, what

    def put(self, _what: object) -> None:
        self._told.append(self._what)


class _Deaf:
    """A queue that refuses so many entries first."""

    def __init__(self, refused: int) -> None:
        self._refused = refused
        self.heard: list[Any] = []

    def put(self, what: Any) -> None:
        if self._refused:
            self._refused -= 1
            raise ResourceExhausted("no space left")
        self.heard.append(what)


def _oci_spec(script: str, cgroup: str, data: str) -> dict[str, Any]:
    return {
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs", "readonly": False},
        "process": _process(["/bin/sh", "-c", script]),
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
            {"destination": "/data", "type": "bind", "source": data, "options": ["rbind", "rw"]},
        ],
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": [{"type": "pid"}, {"type": "mount"}],
            "resources": {"memory": {"limit": 64 << 20}, "devices": [{"allow": False, "access": "rwm"}]},
        },
    }


def _process(args: list[str]) -> dict[str, Any]:
    return {"args": args, "env": ["PATH=/bin"], "cwd": "/", "user": {"uid": 0, "gid": 0}, "noNewPrivileges": True}


def _until(what: str, holds: Callable[[], bool]) -> None:
    """Of what no event tells: looked for until it is so."""
    deadline = time.monotonic() + _SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"waited {_SECONDS} s for {what}"
        time.sleep(0.02)


def _is_alive(pid: int) -> bool:
    """A zombie is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _mentioning(directory: str) -> list[str]:
    """Processes that work in `directory` or below it."""
    found = []
    for entry in Path("/proc").iterdir():
        if parse_decimal(entry.name) not in (None, os.getpid()):
            try:
                if f"{os.readlink(entry / 'cwd')}/".startswith(f"{directory}/"):
                    found.append((entry / "cmdline").read_text())
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
    return found
