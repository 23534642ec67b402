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

from runtime_core.cgroups.detect import detect_version
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
from runtime_core.testing.tools import require_program

_SECONDS = 20.0
_MOST_OUTPUT = 16 * 1024 * 1024
_APPLETS = ("sh", "cat", "echo", "sleep", "true", "hostname", "readlink", "yes", "head", "touch", "ls", "kill", "pwd")
_FOREVER = "sleep 1000"
MakeRuntime = Callable[[RuntimeContext], Runtime]


class RuntimeEnvironment:
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
        """An open pod; `fields` are those of PodSpec."""
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
        """Create and start a container; its id."""
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
        """Close every pod and remove what the containers had."""
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
        """Entry point of the cgroup driver to use."""
        return locate("cgroup", detect_version())

    @pytest.fixture
    def preload(self, cgroup_manager: str) -> list[str]:
        return ["runtime_core.monitor.server", cgroup_manager.partition(":")[0]]

    @pytest.fixture
    def launcher(self, preload: list[str]) -> Iterator[Launcher]:
        """A launcher that has loaded `preload`."""
        launcher = Launcher.start(preload)
        yield launcher
        launcher.close()

    @pytest.fixture
    def image(self, tmp_path: Path) -> Path:
        """A root file system with busybox."""
        busybox = require_program("busybox", "busybox-static")
        image = tmp_path / "image"
        for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "data"):
            (image / name).mkdir(parents=True)
        shutil.copy(busybox, image / "bin" / "busybox")
        for name in _APPLETS:
            (image / "bin" / name).symlink_to("busybox")
        return image

    @pytest.fixture
    def env(
        self, make_runtime: MakeRuntime, launcher: Launcher, cgroup_manager: str, image: Path, tmp_path: Path
    ) -> Iterator[RuntimeEnvironment]:
        """And the promise that closing its pods leaves neither a mount nor a cgroup nor a process."""
        env = RuntimeEnvironment(make_runtime, launcher, cgroup_manager, tmp_path, image)
        yield env
        env.close()
        assert mounts.mounted_below(str(tmp_path)) == []
        assert not env.cgroups.exists(env.cgroup)
        _until("the end of the pods' processes", lambda: _mentioning(str(tmp_path)) == [])

    # -- pods

    def test_open_pod_gives_living_processes(self, env: RuntimeEnvironment) -> None:
        """The monitor's PID, and that of the pod's own PID 1 where it has one."""
        monitor, init = env.runtime.open_pod(env.spec())
        assert (_is_alive(monitor), init) == (True, 0)
        monitor, init = env.runtime.open_pod(env.spec(pid_mode="pod"))
        assert _is_alive(monitor) and _is_alive(init)

    def test_open_pod_pins_a_network_namespace_of_its_own(self, env: RuntimeEnvironment) -> None:
        """Under the name that was asked for, with lo up and nothing else: not the node's."""
        one, other = env.pod(), env.pod()
        inodes = {os.stat(path).st_ino for path in (one.netns_path, other.netns_path, "/proc/self/ns/net")}
        assert len(inodes) == 3

    def test_a_failed_open_leaves_nothing(self, env: RuntimeEnvironment) -> None:
        """Here a sysctl that does not exist: no namespace is pinned and no process runs."""
        spec = env.spec(sysctls={"net.ipv4.no_such_thing": "1"})
        with pytest.raises(TrivetError, match="no_such_thing"):
            env.runtime.open_pod(spec)
        assert not os.path.exists(spec.netns_path)
        _until("the end of its processes", lambda: _mentioning(spec.directory) == [])

    def test_close_pod_ends_everything_and_twice(self, env: RuntimeEnvironment) -> None:
        """Monitor, containers, pin and directory are gone; the second one succeeds."""
        spec = env.spec(pid_mode="pod")
        monitor, init = env.runtime.open_pod(spec)
        env.run(spec, _FOREVER)
        for _time in range(2):
            env.runtime.close_pod(spec)
            _until("the end of the processes", lambda: not _is_alive(monitor) and not _is_alive(init))
            assert not os.path.exists(spec.netns_path)
            assert not os.path.exists(spec.directory)
        assert env.lost.empty(), "a pod that was closed is not lost"

    def test_a_pod_that_was_never_opened_can_be_closed(self, env: RuntimeEnvironment) -> None:
        """It is closed already."""
        env.runtime.close_pod(env.spec())

    def test_containers_of_a_pod_share_its_namespaces(self, env: RuntimeEnvironment) -> None:
        """Network, IPC and UTS with the pod's host name; each has its own PID and mount namespace."""
        pod = env.pod()
        show = "for kind in net ipc uts pid mnt; do readlink /proc/self/ns/$kind; done; hostname"
        shown = [env.exec(pod, env.run(pod, _FOREVER), show).stdout.split() for _number in range(2)]
        assert shown[0][:3] == shown[1][:3]
        assert os.fsencode(os.readlink("/proc/self/ns/net")) not in shown[0]
        assert shown[0][3] != shown[1][3] and shown[0][4] != shown[1][4]
        assert shown[0][5] == b"contract"

    # -- a container's life

    def test_create_does_not_run_the_program(self, env: RuntimeEnvironment) -> None:
        """`start` does, and says when."""
        pod = env.pod()
        container = env.container(pod, f"echo ran > /data/ran; {_FOREVER}")
        assert _is_alive(env.runtime.create(container))
        assert os.listdir(env.directory / "data") == []
        before = time.time_ns()
        started = env.runtime.start(pod.id, container.id)
        assert before <= started <= time.time_ns()
        assert env.data("ran") == "ran"

    @pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("sh -c 'kill -9 $$'; exit $?", 137)])
    def test_the_end_is_told_once(self, env: RuntimeEnvironment, script: str, code: int) -> None:
        """With the program's own code, 128 + signal when a signal ended it, and the time."""
        pod = env.pod()
        container_id = env.run(pod, script)
        end = env.ends.get(timeout=_SECONDS)
        assert (end.pod_id, end.container_id, end.exit_code, end.oom_killed) == (pod.id, container_id, code, False)
        assert 0 <= time.time_ns() - end.finished_at < _SECONDS * 1e9
        env.runtime.delete(pod.id, container_id)
        env.runtime.close_pod(pod)
        assert env.ends.empty()

    def test_a_program_that_is_not_there(self, env: RuntimeEnvironment) -> None:
        """start raises with what exec(2) said; the container can be deleted."""
        pod = env.pod()
        container = env.container(pod, "")
        container.spec["process"]["args"] = ["/bin/no-such-program"]
        with pytest.raises(TrivetError, match=r"no-such-program|No such file"):
            env.runtime.create(container)
            env.runtime.start(pod.id, container.id)
        env.runtime.delete(pod.id, container.id)

    def test_an_id_is_taken_once(self, env: RuntimeEnvironment) -> None:
        """AlreadyExists, and the first container runs on."""
        pod = env.pod()
        container_id = env.run(pod, _FOREVER)
        with pytest.raises(AlreadyExists):
            env.runtime.create(env.container(pod, _FOREVER, id=container_id))
        assert env.exec(pod, container_id, "echo alive").stdout == b"alive\n"

    def test_start_twice(self, env: RuntimeEnvironment) -> None:
        """FailedPrecondition, and the container runs on."""
        pod = env.pod()
        container_id = env.run(pod, _FOREVER)
        with pytest.raises(FailedPrecondition):
            env.runtime.start(pod.id, container_id)
        assert env.exec(pod, container_id, "echo alive").stdout == b"alive\n"

    def test_kill_sends_the_signal(self, env: RuntimeEnvironment) -> None:
        """To the init, which may handle it; SIGKILL it cannot."""
        pod = env.pod()
        polite = env.run(pod, f"trap 'exit 9' TERM; echo set > /data/trap; {_FOREVER} & wait")
        assert env.data("trap") == "set"
        env.runtime.kill(pod.id, polite, signal.SIGTERM)
        assert env.ends.get(timeout=_SECONDS).exit_code == 9
        rude = env.run(pod, _FOREVER)
        env.runtime.kill(pod.id, rude, signal.SIGKILL)
        assert env.ends.get(timeout=_SECONDS).exit_code == 137

    def test_kill_everything(self, env: RuntimeEnvironment) -> None:
        """Every process of the container, also one that left the session."""
        pod = env.pod()
        container_id = env.run(pod, f"{_FOREVER} & {_FOREVER}")
        path = f"{env.cgroup}/{container_id}"
        _until("two processes or more", lambda: len(env.cgroups.processes(path)) >= 2)
        env.runtime.kill(pod.id, container_id, signal.SIGKILL, everything=True)
        assert env.ends.get(timeout=_SECONDS).exit_code == 137
        _until("no process", lambda: env.cgroups.processes(path) == [])

    def test_kill_of_the_dead_and_of_the_unknown(self, env: RuntimeEnvironment) -> None:
        """No error for a container that has ended; NotFound for one that never was; InvalidArgument for no signal."""
        pod = env.pod()
        container_id = env.run(pod, "exit 0")
        env.ends.get(timeout=_SECONDS)
        env.runtime.kill(pod.id, container_id, signal.SIGTERM)
        env.runtime.kill(pod.id, container_id, signal.SIGKILL, everything=True)
        with pytest.raises(NotFound):
            env.runtime.kill(pod.id, "never-was", signal.SIGTERM)
        running = env.run(pod, _FOREVER)
        with pytest.raises(InvalidArgument):
            env.runtime.kill(pod.id, running, 4711)

    def test_delete_forgets_and_twice(self, env: RuntimeEnvironment) -> None:
        """A container that runs is killed; its cgroup is gone, and its id is free."""
        pod = env.pod()
        container_id = env.run(pod, _FOREVER)
        for _time in range(2):
            env.runtime.delete(pod.id, container_id)
            assert not env.cgroups.exists(f"{env.cgroup}/{container_id}")
        env.run(pod, _FOREVER, id=container_id)

    # -- exec, update, logs

    def test_exec_sync_separates_streams_and_gives_the_code(self, env: RuntimeEnvironment) -> None:
        """In the container's own root and namespaces."""
        pod = env.pod()
        container_id = env.run(pod, f"touch /inside; {_FOREVER}")
        result = env.exec(pod, container_id, "ls /inside; echo to-err >&2; exit 5")
        assert (result.exit_code, result.stdout, result.stderr) == (5, b"/inside\n", b"to-err\n")

    def test_exec_sync_cuts_the_output(self, env: RuntimeEnvironment) -> None:
        """At 16 MiB of each stream; the command ends all the same."""
        pod = env.pod()
        container_id = env.run(pod, _FOREVER)
        result = env.exec(pod, container_id, f"yes | head -c {_MOST_OUTPUT + 100_000}; exit 3")
        assert (result.exit_code, len(result.stdout)) == (3, _MOST_OUTPUT)

    def test_exec_sync_that_takes_too_long(self, env: RuntimeEnvironment) -> None:
        """DeadlineExceeded; its whole tree is killed, and the container runs on."""
        pod = env.pod()
        container_id = env.run(pod, _FOREVER)
        path = f"{env.cgroup}/{container_id}"
        before = set(env.cgroups.processes(path))
        with pytest.raises(DeadlineExceeded):
            env.exec(pod, container_id, f"{_FOREVER} & {_FOREVER}", 0.5)
        _until("the end of the command", lambda: set(env.cgroups.processes(path)) == before)
        assert env.exec(pod, container_id, "echo alive").stdout == b"alive\n"

    def test_exec_sync_needs_a_running_container(self, env: RuntimeEnvironment) -> None:
        """FailedPrecondition before it is started and after it has ended; NotFound when it is unknown."""
        pod = env.pod()
        created = env.container(pod, _FOREVER)
        env.runtime.create(created)
        ended = env.run(pod, "exit 0")
        env.ends.get(timeout=_SECONDS)
        for container_id in (created.id, ended):
            with pytest.raises(FailedPrecondition):
                env.exec(pod, container_id, "true")
        with pytest.raises(NotFound):
            env.exec(pod, "never-was", "true")

    def test_update_changes_limits(self, env: RuntimeEnvironment) -> None:
        """As the cgroup's own statistics show; the container runs on. NotFound when it is unknown."""
        pod = env.pod()
        container_id = env.run(pod, _FOREVER)
        env.runtime.update(pod.id, container_id, {"pids": {"limit": 321}})
        assert env.cgroups.statistics(f"{env.cgroup}/{container_id}")["pids_limit"] == 321
        assert env.exec(pod, container_id, "echo alive").stdout == b"alive\n"
        with pytest.raises(NotFound):
            env.runtime.update(pod.id, "never-was", {"pids": {"limit": 321}})

    def test_the_log_is_written_and_reopened(self, env: RuntimeEnvironment) -> None:
        """Lines of both streams before the end is told; after reopen_log a new file is written to."""
        pod, log = env.pod(), env.directory / "c.log"
        script = "trap 'echo second; exit 0' TERM; echo first; echo wrong >&2; sleep 1000 & wait"
        container_id = env.run(pod, script, log_path=str(log))
        _until("two lines", lambda: len(log.read_text().splitlines()) == 2)
        assert sorted(line.split(" ", 1)[1] for line in log.read_text().splitlines()) == ["stderr F wrong", "stdout F first"]
        log.rename(log.with_name("rotated"))
        env.runtime.reopen_log(pod.id, container_id)
        env.runtime.kill(pod.id, container_id, signal.SIGTERM)
        env.ends.get(timeout=_SECONDS)
        assert [line.split(" ", 1)[1] for line in log.read_text().splitlines()] == ["stdout F second"]

    # -- the next daemon

    def test_another_object_recovers_the_pod(self, env: RuntimeEnvironment) -> None:
        """It is told of every container in its state, hears of ends from then on, and can do all that the first could."""
        pod = env.pod()
        created = env.container(pod, f"echo ran > /data/ran; {_FOREVER}")
        env.runtime.create(created)
        running = env.run(pod, _FOREVER)
        ended = env.run(pod, "exit 4")
        env.ends.get(timeout=_SECONDS)
        ends: queue.Queue[ContainerExit] = queue.Queue()
        second = env.another(ends, queue.Queue())
        found = {process.id: process for process in second.recover_pod(pod)}
        assert {key: process.status for key, process in found.items()} == {
            created.id: "created", running: "running", ended: "stopped",
        }  # fmt: skip
        assert _is_alive(found[running].pid) and found[running].started_at > 0
        end = found[ended].exit
        assert end is not None and end.exit_code == 4
        second.start(pod.id, created.id)
        assert env.data("ran") == "ran"
        second.kill(pod.id, running, signal.SIGKILL)
        assert ends.get(timeout=_SECONDS).container_id == running
        second.close_pod(pod)

    def test_a_dead_monitor_is_told_and_its_containers_with_it(self, env: RuntimeEnvironment) -> None:
        """A container is never without a monitor: the pod is lost, then it is killed, and its end is told."""
        told: list[str] = []
        second = env.another(_Told(told, "end"), _Told(told, "lost"))
        spec = env.spec()
        monitor, _init = second.open_pod(spec)
        container = env.container(spec, _FOREVER)
        second.create(container)
        os.kill(monitor, signal.SIGKILL)
        _until("what is told", lambda: len(told) == 2)
        assert told == ["lost", "end"]
        assert env.cgroups.processes(f"{env.cgroup}/{container.id}") == []

    def test_every_container_of_a_dead_monitor_ends(self, env: RuntimeEnvironment) -> None:
        """With the code that its monitor wrote down, or as killed; what is removed then leaves nothing."""
        spec = env.spec()
        monitor, _init = env.runtime.open_pod(spec)
        ended = env.run(spec, "exit 6")
        assert env.ends.get(timeout=_SECONDS).container_id == ended
        running = {env.run(spec, _FOREVER) for _number in range(20)}
        os.kill(monitor, signal.SIGKILL)
        assert env.lost.get(timeout=_SECONDS) == spec.id
        ends = [env.ends.get(timeout=_SECONDS) for _number in range(21)]
        assert {end.container_id: end.exit_code for end in ends} == {ended: 6, **dict.fromkeys(running, 137)}
        for container_id in (ended, *running):
            env.runtime.delete(spec.id, container_id)
            assert not env.cgroups.exists(f"{env.cgroup}/{container_id}")

    def test_who_cannot_listen_now_is_told_again(self, env: RuntimeEnvironment) -> None:
        """The disk of its records may be full; what other pods tell is heard meanwhile."""
        ends, lost = _Deaf(2), _Deaf(2)
        second = env.another(ends, lost)
        spec = env.spec()
        monitor, _init = second.open_pod(spec)
        for script in ("exit 3", _FOREVER):
            container = env.container(spec, script)
            second.create(container)
            second.start(spec.id, container.id)
        _until("the first end", lambda: [end.exit_code for end in ends.heard] == [3])
        os.kill(monitor, signal.SIGKILL)
        _until("the pod's end", lambda: lost.heard == [spec.id] and 137 in [end.exit_code for end in ends.heard])

    def test_nothing_can_be_done_in_a_lost_pod(self, env: RuntimeEnvironment) -> None:
        """PodLost, which no retry helps; deleting works, and so does a command that was running return."""
        spec = env.spec()
        monitor, _init = env.runtime.open_pod(spec)
        container_id = env.run(spec, _FOREVER)
        with ThreadPoolExecutor(1) as pool:
            command = pool.submit(env.exec, spec, container_id, f"echo up > /data/up; {_FOREVER}", None)
            assert env.data("up") == "up"
            os.kill(monitor, signal.SIGKILL)
            with pytest.raises(PodLost):
                command.result(_SECONDS)
        for call in (
            lambda: env.runtime.create(env.container(spec, _FOREVER)),
            lambda: env.runtime.start(spec.id, container_id),
            lambda: env.runtime.kill(spec.id, container_id, signal.SIGTERM),
            lambda: env.exec(spec, container_id, "true"),
            lambda: env.runtime.reopen_log(spec.id, container_id),
        ):
            with pytest.raises(PodLost):
                call()
        env.ends.get(timeout=_SECONDS)
        assert env.cgroups.processes(f"{env.cgroup}/{container_id}") == []
        env.runtime.delete(spec.id, container_id)
        assert not env.cgroups.exists(f"{env.cgroup}/{container_id}")

    def test_a_pod_whose_monitor_died_unseen_is_not_found(self, env: RuntimeEnvironment) -> None:
        """recover_pod raises NotFound, having told how the containers ended; close_pod then works from the PodSpec alone."""
        spec = env.spec()
        monitor, _init = env.runtime.open_pod(spec)
        ended = env.run(spec, "exit 6")
        env.ends.get(timeout=_SECONDS)
        killed = env.run(spec, _FOREVER)
        os.kill(monitor, signal.SIGKILL)
        env.lost.get(timeout=_SECONDS)
        ends: queue.Queue[ContainerExit] = queue.Queue()
        second = env.another(ends, queue.Queue())
        with pytest.raises(NotFound):
            second.recover_pod(spec)
        told = [ends.get(timeout=_SECONDS) for _number in range(2)]
        assert {end.container_id: end.exit_code for end in told} == {ended: 6, killed: 137}
        second.close_pod(spec)
        assert not os.path.exists(spec.directory)

    def test_features_are_a_document(self, env: RuntimeEnvironment) -> None:
        """JSON, with the versions of the OCI runtime specification that it understands."""
        features = json.loads(json.dumps(env.runtime.features()))
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
