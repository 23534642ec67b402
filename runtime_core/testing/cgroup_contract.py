"""The contract suite of `trivet.cgroup`; who writes a driver subclasses it and overrides `cgroups`.

class TestMine(CgroupContract):
    @pytest.fixture
    def cgroups(self):
        return Mine()

It needs root. What limits do is seen by processes that run into them, never in the files of a cgroup version.
"""

from __future__ import annotations

import os
import secrets
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from runtime_core.errors import InvalidArgument, NotFound
from runtime_core.interfaces.cgroup_manager import CgroupManager

_MIB = 1 << 20
_NAMES = {
    "cpu_usage_ns", "cpu_throttled_periods", "memory_usage", "memory_working_set", "memory_rss", "memory_available",
    "memory_page_faults", "memory_major_page_faults", "swap_usage", "swap_available", "pids_current", "pids_limit",
}  # fmt: skip
_NO_SUCH_CPU = {"cpu": {"cpus": "9999"}}
_DENY_ALL = {"allow": False, "access": "rwm"}
_ZERO = {"allow": True, "type": "c", "major": 1, "minor": 5, "access": "r"}
#: long enough to see that a frozen process does not answer
_FROZEN_MILLISECONDS = 200
_WORKER = """
import errno, os, signal, sys, time
held = []
def ping(): return "pong"
def cpus(): return ",".join(map(str, sorted(os.sched_getaffinity(0))))
def fork():
    if os.fork() == 0:
        signal.pause()
    return "forked"
def hold(mebibytes):
    held.append(b"x" * (int(mebibytes) << 20))
    return "held"
def burn(seconds):
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        pass
    return "burned"
def opens(path, flags):
    os.close(os.open(path, int(flags)))
    return "opened"
while line := sys.stdin.readline():
    name, *arguments = line.split()
    try:
        answer = globals()[name](*arguments)
    except OSError as error:
        answer = errno.errorcode[error.errno]
    print(answer, flush=True)
"""


class Worker:
    """A process that does as it is told, by functions of the script above."""

    def __init__(self) -> None:
        command = [sys.executable, "-I", "-S", "-c", _WORKER]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.pid = self.process.pid

    def run_command(self, *words: object) -> str:
        self.send_command(*words)
        return self.read_reply()

    def send_command(self, *words: object) -> None:
        """Send a command."""
        assert self.process.stdin
        print(*words, file=self.process.stdin)

    def read_reply(self) -> str:
        """Wait for the answer to the last command."""
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def has_reply(self) -> bool:
        assert self.process.stdout
        return bool(select.select([self.process.stdout.fileno()], [], [], _FROZEN_MILLISECONDS / 1000)[0])

    def end(self) -> int:
        """Let it end; its exit status."""
        self.process.kill()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream
            stream.close()
        return self.process.wait()


class CgroupContract:
    @pytest.fixture
    def cgroups(self) -> CgroupManager:
        """The driver."""
        raise NotImplementedError("override cgroups")

    @pytest.fixture
    def path(self, cgroups: CgroupManager) -> Iterator[str]:
        """A cgroup that does not exist yet, below one that does not either."""
        top = f"/trivet-contract-{secrets.token_hex(4)}"
        yield f"{top}/pod"
        cgroups.destroy(top)
        assert not cgroups.exists(top)

    @pytest.fixture
    def worker(self, cgroups: CgroupManager, path: str) -> Iterator[Callable[[dict[str, Any]], Worker]]:
        """What creates the cgroup with resources and puts a worker in."""
        workers = []

        def make(resources: dict[str, Any], at: str = path) -> Worker:
            cgroups.create(at, resources)
            workers.append(Worker())
            cgroups.attach(at, workers[-1].pid)
            return workers[-1]

        yield make
        for made in workers:
            cgroups.thaw(path)
            made.end()

    # -- being there

    def test_create_says_what_it_made(self, cgroups: CgroupManager, path: str) -> None:
        """Directories that exist, parents before children; nothing the second time; what was there stays unnamed."""
        made = cgroups.create(f"{path}/a", {})
        assert made
        assert all(os.path.isdir(directory) for directory in made)
        assert all(not parent.startswith(f"{child}/") for i, child in enumerate(made) for parent in made[:i])
        assert cgroups.create(f"{path}/a", {}) == []
        assert not set(cgroups.create(f"{path}/b", {})) & set(made)
        assert [cgroups.exists(p) for p in (path, f"{path}/a", f"{path}/b", f"{path}/c")] == [True, True, True, False]

    def test_create_below_what_somebody_has_just_made(self, cgroups: CgroupManager, path: str) -> None:
        """Bare directories, as another creator leaves them for a moment: a process can be put in, there and below."""
        for directory in cgroups.create(path, {}):
            if directory.endswith(path):
                os.mkdir(f"{directory}/bare")
        worker = Worker()
        for made in (f"{path}/bare/a", f"{path}/bare/b"):
            cgroups.create(made, {})
            cgroups.attach(made, worker.pid)
        assert cgroups.processes(f"{path}/bare") == [worker.pid]
        cgroups.destroy(path)
        worker.end()

    def test_a_failed_create_leaves_nothing(self, cgroups: CgroupManager, path: str) -> None:
        """InvalidArgument names what the kernel refused; the parents that it made are gone too."""
        with pytest.raises(InvalidArgument, match="cpus"):
            cgroups.create(f"{path}/a", _NO_SUCH_CPU)
        assert not cgroups.exists(path.rpartition("/")[0])

    @pytest.mark.parametrize("bad", ["", "/", "relative/path", "/trivet/../x", "/trivet/."])
    def test_a_path_is_absolute_and_plain(self, cgroups: CgroupManager, bad: str) -> None:
        """InvalidArgument names the field of the specification."""
        with pytest.raises(InvalidArgument, match="cgroupsPath"):
            cgroups.create(bad, {})

    def test_destroy_twice(self, cgroups: CgroupManager, path: str) -> None:
        """What is in it is killed, what is below it goes along, and the second one succeeds."""
        cgroups.create(f"{path}/a/b", {})
        worker = Worker()
        cgroups.attach(f"{path}/a/b", worker.pid)
        for _time in range(2):
            cgroups.destroy(path)
            assert not cgroups.exists(path)
        assert worker.end() == -9

    # -- processes

    def test_attach_another(self, cgroups: CgroupManager, path: str, worker: Callable[..., Worker]) -> None:
        """It is in the cgroup, and so what it forks."""
        attached = worker({})
        assert cgroups.processes(path) == [attached.pid]
        assert attached.run_command("fork") == "forked"
        assert len(cgroups.processes(path)) == 2

    def test_attach_the_caller(self, cgroups: CgroupManager, path: str) -> None:
        """0 is the calling process, whatever its number is in the namespace of the reader."""
        cgroups.create(path, {})
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                cgroups.attach(path, 0)
                os.write(writer, b"in")
                select.poll().poll()
            finally:
                os._exit(1)
        os.close(writer)
        assert os.read(reader, 2) == b"in"
        os.close(reader)
        assert cgroups.processes(path) == [pid]
        cgroups.kill(path)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -9

    def test_processes_below_count(self, cgroups: CgroupManager, path: str, worker: Callable[..., Worker]) -> None:
        """Of those in cgroups of its own the container's cgroup knows too."""
        below = worker({}, f"{path}/a")
        assert cgroups.processes(path) == cgroups.processes(f"{path}/a") == [below.pid]

    def test_what_does_not_exist(self, cgroups: CgroupManager, path: str) -> None:
        """It has no processes and nothing to kill; nothing can be put in, asked or changed."""
        assert cgroups.processes(path) == []
        cgroups.kill(path)
        with pytest.raises(NotFound):
            cgroups.attach(path, os.getpid())
        with pytest.raises(NotFound):
            cgroups.statistics(path)
        with pytest.raises(NotFound):
            cgroups.update(path, {"pids": {"limit": 10}})

    def test_kill_takes_all(self, cgroups: CgroupManager, path: str, worker: Callable[..., Worker]) -> None:
        """Those in cgroups below, and their children; the cgroup stays."""
        workers = [worker({}, f"{path}/{name}") for name in ("a", "b/c")]
        assert [one.run_command("fork") for one in workers] == ["forked"] * 2
        assert len(cgroups.processes(path)) == 4
        cgroups.kill(path)
        assert cgroups.processes(path) == []
        assert [one.process.wait() for one in workers] == [-9, -9]
        assert cgroups.exists(f"{path}/a")

    def test_freeze_and_thaw(self, cgroups: CgroupManager, path: str, worker: Callable[..., Worker]) -> None:
        """Frozen it does not answer; thawed it does."""
        frozen = worker({})
        assert frozen.run_command("ping") == "pong"
        cgroups.freeze(path)
        frozen.send_command("ping")
        assert not frozen.has_reply()
        cgroups.thaw(path)
        assert frozen.read_reply() == "pong"

    def test_kill_takes_what_is_frozen(self, cgroups: CgroupManager, path: str, worker: Callable[..., Worker]) -> None:
        """The freezer holds nobody back from dying."""
        frozen = worker({})
        cgroups.freeze(path)
        cgroups.kill(path)
        assert frozen.process.wait() == -9

    # -- limits

    def test_limit_of_processes(self, cgroups: CgroupManager, path: str, worker: Callable[..., Worker]) -> None:
        """A fork beyond it fails, and works once the limit is raised or taken away."""
        limited = worker({"pids": {"limit": 2}})
        assert [limited.run_command("fork"), limited.run_command("fork")] == ["forked", "EAGAIN"]
        assert cgroups.statistics(path)["pids_limit"] == 2
        cgroups.update(path, {"pids": {"limit": 3}})
        assert [limited.run_command("fork"), limited.run_command("fork")] == ["forked", "EAGAIN"]
        cgroups.update(path, {"pids": {"limit": -1}})
        assert limited.run_command("fork") == "forked"
        assert cgroups.statistics(path)["pids_limit"] == 0

    def test_limit_of_memory(self, cgroups: CgroupManager, path: str, worker: Callable[..., Worker]) -> None:
        """Within it all is well; beyond it the OOM killer comes, which is counted and heard."""
        limited = worker({"memory": {"limit": 64 * _MIB, "swap": 64 * _MIB}})
        assert limited.run_command("hold", 16) == "held"
        assert cgroups.oom_kills(path) == 0
        heard = cgroups.oom_descriptor(path)
        poller = select.poll()
        if heard >= 0:
            poller.register(heard, select.POLLIN | select.POLLPRI)
        limited.send_command("hold", 128)
        assert limited.process.wait() == -9
        assert cgroups.oom_kills(path) == 1
        if heard >= 0:
            assert poller.poll(5000)
            os.close(heard)

    def test_limit_of_memory_is_raised(self, cgroups: CgroupManager, path: str, worker: Callable[..., Worker]) -> None:
        """Memory with swap, in either direction: neither is ever above the other."""
        limited = worker({"memory": {"limit": 32 * _MIB, "swap": 32 * _MIB}})
        cgroups.update(path, {"memory": {"limit": 256 * _MIB, "swap": 256 * _MIB}})
        assert limited.run_command("hold", 64) == "held"
        cgroups.update(path, {"memory": {"limit": 128 * _MIB, "swap": 128 * _MIB}})
        assert 0 < cgroups.statistics(path)["memory_available"] <= 128 * _MIB

    @pytest.mark.parametrize("room", [0, 32 * _MIB])
    def test_room_for_swap_stays_beside_a_new_limit(
        self, cgroups: CgroupManager, path: str, worker: Callable[..., Worker], room: int
    ) -> None:
        """Of memory alone nothing is said about swap: neither is the update refused nor does one buy the other."""
        limited = worker({"memory": {"limit": 64 * _MIB, "swap": 64 * _MIB + room}})
        for limit in (128 * _MIB, 32 * _MIB, 256 * _MIB):
            cgroups.update(path, {"memory": {"limit": limit}})
            _check_memory(cgroups, path, limit, room)
        assert limited.run_command("hold", 64) == "held"
        cgroups.update(path, {"memory": {"limit": -1}})
        _check_memory(cgroups, path, 0, 0)

    def test_memory_and_swap_in_every_order(self, cgroups: CgroupManager, path: str, worker: Callable[..., Worker]) -> None:
        """Up, down, past each other, and without a limit in between."""
        worker({})
        steps = [(64, 64), (128, 128), (32, 256), (256, 256), (64, 96), (96, 96), (512, 1024), (40, 48)]
        for limit, swap in (*steps, *steps[::-1]):
            cgroups.update(path, {"memory": {"limit": limit * _MIB, "swap": swap * _MIB}})
            _check_memory(cgroups, path, limit * _MIB, (swap - limit) * _MIB)
            cgroups.update(path, {"memory": {"limit": limit * _MIB, "swap": -1}})
            _check_memory(cgroups, path, limit * _MIB, 0)
            cgroups.update(path, {"memory": {"limit": -1, "swap": -1}})
            _check_memory(cgroups, path, 0, 0)

    def test_limit_of_cpu_time(self, cgroups: CgroupManager, path: str, worker: Callable[..., Worker]) -> None:
        """A tenth of a processor is a tenth: it is throttled, and uses less than it wanted."""
        limited = worker({"cpu": {"shares": 512, "quota": 10000, "period": 100000}})
        before = cgroups.statistics(path)
        assert limited.run_command("burn", 1) == "burned"
        after = cgroups.statistics(path)
        assert 0 < after["cpu_usage_ns"] - before["cpu_usage_ns"] < 600_000_000
        assert after["cpu_throttled_periods"] > before["cpu_throttled_periods"]

    def test_set_of_processors(self, cgroups: CgroupManager, path: str, worker: Callable[..., Worker]) -> None:
        """Only those that it was given; without a word all that its parent has."""
        assert worker({"cpu": {"cpus": "0"}}).run_command("cpus") == "0"
        assert worker({}, f"{path}-all").run_command("cpus") == ",".join(map(str, sorted(os.sched_getaffinity(0))))

    def test_devices(self, worker: Callable[..., Worker]) -> None:
        """What no rule allows cannot be opened, and an allowed device only as the rule says."""
        limited = worker({"devices": [_DENY_ALL, _ZERO]})
        assert limited.run_command("opens", "/dev/zero", os.O_RDONLY) == "opened"
        assert limited.run_command("opens", "/dev/zero", os.O_RDWR) == "EPERM"
        assert limited.run_command("opens", "/dev/null", os.O_RDONLY) == "EPERM"

    def test_all_devices(self, worker: Callable[..., Worker]) -> None:
        """A privileged container's rules allow everything."""
        assert (
            worker({"devices": [_DENY_ALL, {"allow": True, "access": "rwm"}]}).run_command("opens", "/dev/null", os.O_RDWR)
            == "opened"
        )

    def test_huge_pages_of_a_size_that_is_not_there(self, cgroups: CgroupManager, path: str) -> None:
        """A limit on what cannot be had anyway is no error: every pod has them."""
        cgroups.create(path, {"hugepageLimits": [{"pageSize": "3GB", "limit": 0}]})

    @pytest.mark.parametrize(
        ("resources", "named"),
        [
            ({"memory": {"limit": "64M"}}, "memory.limit"),
            ({"cpu": {"shares": 2.5}}, "cpu.shares"),
            ({"pids": {"limit": "many"}}, "pids.limit"),
        ],
    )
    def test_a_value_of_the_wrong_type(self, cgroups: CgroupManager, path: str, resources: dict[str, Any], named: str) -> None:
        """InvalidArgument names its field."""
        with pytest.raises(InvalidArgument, match=named):
            cgroups.create(path, resources)
        assert not cgroups.exists(path)

    def test_a_failed_update_changes_nothing(self, cgroups: CgroupManager, path: str, worker: Callable[..., Worker]) -> None:
        """The memory limit that went before the refused processors stands as it was."""
        limited = worker({"memory": {"limit": 128 * _MIB, "swap": 128 * _MIB}, "cpu": {"cpus": "0"}})
        with pytest.raises(InvalidArgument, match="cpus"):
            cgroups.update(path, {"memory": {"limit": 256 * _MIB, "swap": 256 * _MIB}, **_NO_SUCH_CPU})
        assert 0 < cgroups.statistics(path)["memory_available"] <= 128 * _MIB
        assert limited.run_command("cpus") == "0"
        cgroups.update(path, {"memory": {"limit": 64 * _MIB, "swap": 96 * _MIB}})
        for swap in ({}, {"swap": 512 * _MIB}, {"swap": -1}):
            with pytest.raises(InvalidArgument, match="cpus"):
                cgroups.update(path, {"memory": {"limit": 256 * _MIB, **swap}, **_NO_SUCH_CPU})
            _check_memory(cgroups, path, 64 * _MIB, 32 * _MIB)

    # -- figures

    def test_statistics(self, cgroups: CgroupManager, path: str, worker: Callable[..., Worker]) -> None:
        """Whole numbers under the contract's names, which grow with what is used; without a limit nothing is available."""
        used = worker({})
        before = cgroups.statistics(path)
        assert before.keys() <= _NAMES
        assert {"cpu_usage_ns", "memory_usage", "memory_working_set", "memory_rss", "pids_current"} <= before.keys()
        assert all(type(value) is int and value >= 0 for value in before.values())
        assert (before["pids_current"], before["pids_limit"], before["memory_available"]) == (1, 0, 0)
        assert used.run_command("hold", 16) == "held"
        assert used.run_command("burn", 0.1) == "burned"
        after = cgroups.statistics(path)
        assert after["memory_rss"] >= 16 * _MIB
        assert after["memory_usage"] >= after["memory_working_set"] >= 16 * _MIB
        assert after["memory_page_faults"] > before["memory_page_faults"]
        assert after["cpu_usage_ns"] > before["cpu_usage_ns"]


def _check_memory(cgroups: CgroupManager, path: str, limit: int, room: int) -> None:
    """By the statistics, the limit of memory and the room for swap, where the machine counts that; 0 for none."""
    statistics = cgroups.statistics(path)
    available = statistics["memory_available"]
    assert (available + statistics["memory_working_set"] if available else 0) == limit
    assert statistics.get("swap_available", room) == room
