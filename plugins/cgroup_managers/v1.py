"""trivet.cgroup v1: one directory per controller, all of the same path.

Loaded in every monitor, so it takes the standard library alone.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal

from runtime_core.cgroups import v1_translate
from runtime_core.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, NotFound, from_oserror

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_OPTIONAL = ("hugetlb", "blkio")
_KILL_ROUNDS = 100
_NO_LIMIT = 1 << 60
#: memory alone, and memory and swap together, which the kernel never lets be less
_LIMIT, _WITH_SWAP = "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"


class CgroupV1:
    """See runtime_core.interfaces.cgroup_manager."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}

    @property
    def _roots(self) -> dict[str, str]:
        """Looked up at first use: mostly in a process that a monitor forks, and not in the monitor itself."""
        if not self._found:
            found = _hierarchies()
            if "memory" not in found:
                raise FailedPrecondition("cgroup v1: no memory controller is mounted")
            self._found = found
        return self._found

    def create(self, path: str, resources: dict[str, Any]) -> list[str]:
        _check(path)
        made: list[str] = []
        try:
            for root in dict.fromkeys(self._roots.values()):
                made += _make(root, path, is_cpuset=root == self._roots.get("cpuset"))
            self._write(path, v1_translate.writes(resources))
        except OSError as error:
            self._remove_created(made)
            raise from_oserror(error, f"creating cgroup {path}") from error
        except BaseException:
            self._remove_created(made)
            raise
        return made

    def update(self, path: str, resources: dict[str, Any]) -> None:
        writes = self._with_swap(path, [w for w in v1_translate.writes(resources) if w[0] != "devices"])
        before = [(controller, file, self._read(controller, path, file)) for controller, file, _ in writes]
        try:
            self._write(path, self._ordered(path, writes))
        except (OSError, InvalidArgument) as error:
            for entry in self._ordered(path, before[::-1]):
                try:
                    self._write(path, [entry])
                except (OSError, InvalidArgument):
                    continue  # what was never there to be read
            if isinstance(error, OSError):
                raise from_oserror(error, f"updating cgroup {path}") from error
            raise

    def attach(self, path: str, pid: int) -> None:
        # A write of 0 to `tasks` moves the calling thread without the lock on all thread groups, which
        # costs an RCU grace period (5 to 15 ms) at the first write.
        text, file = str(pid).encode(), "cgroup.procs" if pid else "tasks"
        for root in dict.fromkeys(self._roots.values()):
            try:
                descriptor = os.open(f"{root}{path}/{file}", os.O_WRONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                raise NotFound(f"cgroup {root}{path} does not exist") from None
            try:
                os.write(descriptor, text)
            finally:
                os.close(descriptor)

    def exists(self, path: str) -> bool:
        return os.path.isdir(self._roots["memory"] + path)

    def processes(self, path: str) -> list[int]:
        found: list[int] = []
        for directory, _names, _files in os.walk(self._roots["memory"] + path):
            try:
                with open(directory + "/cgroup.procs") as file:
                    found += map(int, file.read().split())
            except (FileNotFoundError, OSError):
                continue
        return found

    def kill(self, path: str) -> None:
        for _round in range(_KILL_ROUNDS):
            pids = self.processes(path)
            if not pids:
                return
            self.thaw(path)
            _kill_and_wait(pids)
        raise DeadlineExceeded(f"cgroup {path} still has processes {self.processes(path)}")

    def destroy(self, path: str) -> None:
        self.kill(path)
        for root in dict.fromkeys(self._roots.values()):
            for directory, _names, _files in os.walk(root + path, topdown=False):
                _remove(directory)

    def freeze(self, path: str) -> None:
        self._write(path, [("freezer", "freezer.state", "FROZEN")])

    def thaw(self, path: str) -> None:
        try:
            self._write(path, [("freezer", "freezer.state", "THAWED")])
        except FileNotFoundError:
            return

    def statistics(self, path: str) -> dict[str, int]:
        found: dict[str, int] = {}
        usage = self._read("cpuacct", path, "cpuacct.usage")
        if not usage:
            raise NotFound(f"cgroup {path} does not exist")
        found["cpu_usage_ns"] = int(usage)
        for line in self._read("cpu", path, "cpu.stat").splitlines():
            if line.startswith("nr_throttled "):
                found["cpu_throttled_periods"] = int(line.split()[1])
        memory = int(self._read("memory", path, "memory.usage_in_bytes") or 0)
        detail = dict(line.split(" ", 1) for line in self._read("memory", path, "memory.stat").splitlines())
        inactive = int(detail.get("total_inactive_file", 0))
        limit = int(self._read("memory", path, _LIMIT) or 0)
        working = max(0, memory - inactive)
        found |= {
            "memory_usage": memory,
            "memory_working_set": working,
            "memory_rss": int(detail.get("total_rss", 0)),
            "memory_available": max(0, limit - working) if limit < _NO_LIMIT else 0,
            "memory_page_faults": int(detail.get("total_pgfault", 0)),
            "memory_major_page_faults": int(detail.get("total_pgmajfault", 0)),
        }
        with_swap = self._read("memory", path, _WITH_SWAP)
        if with_swap:
            swap, limited = int(detail.get("total_swap", 0)), int(with_swap) < _NO_LIMIT
            found |= {"swap_usage": swap, "swap_available": max(0, int(with_swap) - limit - swap) if limited else 0}
        pids = self._read("pids", path, "pids.current")
        if pids:
            limit_text = self._read("pids", path, "pids.max").strip()
            found["pids_current"] = int(pids)
            found["pids_limit"] = 0 if limit_text == "max" else int(limit_text)
        return found

    def oom_kills(self, path: str) -> int:
        for line in self._read("memory", path, "memory.oom_control").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
        return 0

    def oom_descriptor(self, path: str) -> int:
        event = ctypes.CDLL(None, use_errno=True).eventfd(0, os.O_CLOEXEC | os.O_NONBLOCK)
        if event < 0:
            return -1
        base = self._roots["memory"] + path
        control = os.open(base + "/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._write(path, [("memory", "cgroup.event_control", f"{event} {control}")])
        finally:
            os.close(control)
        return int(event)

    def _with_swap(self, path: str, writes: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
        """A limit without a word about swap leaves the room for swap as it is, as v2 does: the sum moves along."""
        wanted = {file: int(value) for _c, file, value in writes if file in (_LIMIT, _WITH_SWAP)}
        total = int(self._read("memory", path, _WITH_SWAP) or _NO_LIMIT)
        if _LIMIT not in wanted or _WITH_SWAP in wanted or total >= _NO_LIMIT:
            return writes
        limit, room = wanted[_LIMIT], total - int(self._read("memory", path, _LIMIT))
        return [*writes, ("memory", _WITH_SWAP, str(limit + room if limit >= 0 else -1))]

    def _ordered(self, path: str, writes: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
        """The sum of memory and swap may never be below the memory: raise it first, lower it last."""
        wanted = next((value for _c, file, value in writes if file == _WITH_SWAP), "")
        if not wanted:
            return writes
        current = int(self._read("memory", path, _WITH_SWAP) or 0)
        swap_first = int(wanted) < 0 or int(wanted) > current
        return sorted(writes, key=lambda write: (write[1] == _WITH_SWAP) != swap_first)

    def _write(self, path: str, writes: list[tuple[str, str, str]]) -> None:
        for controller, file, value in writes:
            root = self._roots.get(controller)
            if root is None:
                if controller in _OPTIONAL:
                    continue
                raise FailedPrecondition(f"cgroup controller {controller} is not there, {file} cannot be set")
            try:
                descriptor = os.open(f"{root}{path}/{file}", os.O_WRONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                if "memsw" in file:
                    continue  # swap accounting is off
                raise
            try:
                os.write(descriptor, value.encode())
            except OSError as error:
                raise InvalidArgument(f"{file}: the kernel refuses {value!r} for {path}: {error.strerror}") from error
            finally:
                os.close(descriptor)

    def _read(self, controller: str, path: str, file: str) -> str:
        try:
            with open(f"{self._roots.get(controller, '/nonexistent')}{path}/{file}") as opened:
                return opened.read().strip()
        except (FileNotFoundError, OSError):
            return ""

    def _remove_created(self, made: list[str]) -> None:
        for directory in reversed(made):
            _remove(directory)


def _hierarchies() -> dict[str, str]:
    """Controller → mount point, of /proc/self/mountinfo; the named systemd hierarchy as "systemd"."""
    found: dict[str, str] = {}
    with open("/proc/self/mountinfo") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            kind, _source, options = after.split(" ", 2)
            if kind != "cgroup":
                continue
            point = before.split(" ")[4]
            for option in options.strip().split(","):
                name = option.removeprefix("name=")
                if option not in ("rw", "ro", "xattr", "clone_children") and "=" not in name:
                    found.setdefault(name, point)
    return found


def _check(path: str) -> None:
    if not path.startswith("/") or path == "/" or any(part in ("..", ".") for part in path.split("/")):
        raise InvalidArgument(f"linux.cgroupsPath: {path!r} must be absolute, without '..'")


def _make(root: str, path: str, *, is_cpuset: bool) -> list[str]:
    try:
        os.mkdir(root + path)
        missing = [path]
    except FileExistsError:
        missing = []
    except FileNotFoundError:
        missing = []
        current = ""
        for part in path.strip("/").split("/"):
            current += "/" + part
            try:
                os.mkdir(root + current)
            except FileExistsError:
                continue
            missing.append(current)
    if is_cpuset:
        for file in ("cpuset.cpus", "cpuset.mems"):
            _fill(root, path, file)
    return [root + level for level in missing]


def _fill(root: str, path: str, file: str) -> str:
    """The value of a cpuset, taken from its parent's where it is empty: then it was made a moment ago, by us or by
    somebody who has not come to that yet, and no process can be in it."""
    with open(f"{root}{path}/{file}") as opened:
        value = opened.read().strip()
    if not value and path:
        value = _fill(root, path.rpartition("/")[0], file)
        with open(f"{root}{path}/{file}", "w") as target:
            target.write(value)
    return value


def _remove(directory: str) -> None:
    for _attempt in range(_KILL_ROUNDS):
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise from_oserror(error, f"removing cgroup {directory}") from error
            select.select([], [], [], 0.01)  # a killed process is still leaving: the kernel tells nobody
            continue
        return


def _kill_and_wait(pids: list[int]) -> None:
    """SIGKILL, and wait a while for each of them to be gone."""
    poller = select.poll()
    descriptors = []
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        descriptors.append(descriptor)
        poller.register(descriptor, select.POLLIN)
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        except ProcessLookupError:
            continue
    waiting = set(descriptors)
    while waiting:
        ended = poller.poll(1000)
        if not ended:
            break
        for descriptor, _event in ended:
            poller.unregister(descriptor)
            waiting.discard(descriptor)
    for descriptor in descriptors:
        os.close(descriptor)
