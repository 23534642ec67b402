"""trivet.cgroup v2: one directory in the unified hierarchy.

Loaded in every monitor, so it takes the standard library alone.
"""

from __future__ import annotations

import os
import select
import time

from runtime_core.cgroups import v2_translate
from runtime_core.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, NotFound, from_oserror
from runtime_core.kernel import device_bpf
from runtime_core.kernel.decimal_number import parse_decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_CONTROLLERS = ("cpuset", "cpu", "io", "memory", "hugetlb", "pids")
#: Without swap accounting and without an I/O policy that weighs, the kernel has no such file.
_OPTIONAL_FILES = ("memory.swap.max", "io.weight")
_SECONDS = 10.0


class CgroupV2:
    """See runtime_core.interfaces.cgroup_manager."""

    def __init__(self) -> None:
        self._root = _mount_point()
        available = _read(f"{self._root}/cgroup.controllers").split()
        self._controllers = [name for name in _CONTROLLERS if name in available]
        if "memory" not in self._controllers:
            raise FailedPrecondition(f"cgroup v2 at {self._root} has no memory controller")

    def create(self, path: str, resources: dict[str, Any]) -> list[str]:
        _check(path)
        writes, program = v2_translate.writes(resources), device_bpf.encode(resources.get("devices") or [])
        made: list[str] = []
        try:
            made += self._make(path)
            self._write(path, writes)
            if program:
                device_bpf.replace(self._root + path, program)
        except BaseException as error:
            for directory in reversed(made):
                _remove(directory)
            if isinstance(error, OSError):
                raise from_oserror(error, f"creating cgroup {path}") from error
            raise
        return made

    def update(self, path: str, resources: dict[str, Any]) -> None:
        writes, program = v2_translate.writes(resources), device_bpf.encode(resources.get("devices") or [])
        if not self.exists(path):
            raise NotFound(f"cgroup {path} does not exist")
        before = [entry for write in writes for entry in self._earlier(path, write)]
        try:
            self._write(path, self._ordered(path, writes))
            if resources.get("devices"):
                device_bpf.replace(self._root + path, program)
        except (OSError, InvalidArgument, FailedPrecondition) as error:
            for entry in reversed(before):
                try:
                    self._write(path, [entry])
                except (OSError, InvalidArgument, FailedPrecondition):
                    continue  # cpu.max and its burst: the other order puts it right
            if isinstance(error, OSError):
                raise from_oserror(error, f"updating cgroup {path}") from error
            raise

    def exists(self, path: str) -> bool:
        return os.path.isdir(self._root + path)

    def attach(self, path: str, pid: int) -> None:
        # cgroup.threads would spare the calling process the lock on all thread groups, as `tasks` does
        # in v1, but moves threads only within one threaded domain.
        try:
            _put(f"{self._root}{path}/cgroup.procs", str(pid))
        except FileNotFoundError:
            raise NotFound(f"cgroup {self._root}{path} does not exist") from None

    def processes(self, path: str) -> list[int]:
        found: list[int] = []
        for directory, _names, _files in os.walk(self._root + path):
            found += map(int, _read(directory + "/cgroup.procs").split())
        return found

    def kill(self, path: str) -> None:
        try:
            _put(f"{self._root}{path}/cgroup.kill", "1")
        except (FileNotFoundError, OSError) as error:
            if self.exists(path):
                raise from_oserror(OSError(error.errno, str(error)), f"killing cgroup {path}") from error
            return
        if not self._wait(path, "populated 0"):
            raise DeadlineExceeded(f"cgroup {path} still has processes {self.processes(path)}")

    def destroy(self, path: str) -> None:
        self.kill(path)
        for directory, _names, _files in os.walk(self._root + path, topdown=False):
            _remove(directory)

    def freeze(self, path: str) -> None:
        try:
            _put(f"{self._root}{path}/cgroup.freeze", "1")
        except FileNotFoundError:
            raise NotFound(f"cgroup {path} does not exist") from None
        if not self._wait(path, "frozen 1"):
            self.thaw(path)
            raise DeadlineExceeded(f"cgroup {path} was not frozen within {_SECONDS:.0f} s")

    def thaw(self, path: str) -> None:
        try:
            _put(f"{self._root}{path}/cgroup.freeze", "0")
        except FileNotFoundError:
            return

    def statistics(self, path: str) -> dict[str, int]:
        base = self._root + path
        cpu = _table(f"{base}/cpu.stat")
        if not cpu:
            raise NotFound(f"cgroup {path} does not exist")
        found = {"cpu_usage_ns": cpu["usage_usec"] * 1000}
        if "nr_throttled" in cpu:
            found["cpu_throttled_periods"] = cpu["nr_throttled"]
        return found | _memory_statistics(base) | _pids_statistics(base)

    def oom_kills(self, path: str) -> int:
        """With those below it: a container may have cgroups of its own."""
        return _table(f"{self._root}{path}/memory.events").get("oom_kill", 0)

    def oom_descriptor(self, path: str) -> int:
        try:
            descriptor = os.open(f"{self._root}{path}/memory.events", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return -1
        os.read(descriptor, 4096)  # what has been is no event; every reader reads after each poll
        return descriptor

    def _make(self, path: str) -> list[str]:
        levels = _levels(path)
        made = []
        try:
            for level in levels:
                try:
                    os.mkdir(self._root + level)
                except FileExistsError:
                    continue
                made.append(self._root + level)
            if not set(self._controllers) <= set(_read(f"{self._root}{path}/cgroup.controllers").split()):
                for parent in ("", *levels[:-1]):
                    self._enable(parent)
        except BaseException:
            for directory in reversed(made):
                _remove(directory)
            raise
        return made

    def _enable(self, parent: str) -> None:
        """Hand the controllers of `parent` down to its children."""
        base = self._root + parent
        available, enabled = _read(f"{base}/cgroup.controllers").split(), _read(f"{base}/cgroup.subtree_control").split()
        missing = [name for name in self._controllers if name in available and name not in enabled]
        if not missing:
            return
        try:
            _put(f"{base}/cgroup.subtree_control", " ".join(f"+{name}" for name in missing))
        except OSError as error:
            pids = _read(f"{base}/cgroup.procs").split()
            if pids and parent:
                raise FailedPrecondition(
                    f"cgroup {parent} has processes of its own ({', '.join(pids[:5])}), so it cannot have limited "
                    f"cgroups below it: move them into one"
                ) from error
            raise

    def _write(self, path: str, writes: list[tuple[str, str, str]]) -> None:
        for controller, file, value in writes:
            try:
                _put(f"{self._root}{path}/{file}", value)
            except FileNotFoundError:
                if file in _OPTIONAL_FILES or controller == "hugetlb":
                    continue
                raise FailedPrecondition(f"cgroup controller {controller} is not there, {file} cannot be set") from None
            except OSError as error:
                raise InvalidArgument(f"{file}: the kernel refuses {value!r} for {path}: {error.strerror}") from error

    def _earlier(self, path: str, write: tuple[str, str, str]) -> list[tuple[str, str, str]]:
        """The writes that undo `write`."""
        controller, file, value = write
        lines = _read(f"{self._root}{path}/{file}").split("\n")
        key, _, rest = value.partition(" ")
        if ":" not in key:
            return [(controller, file, line) for line in lines]
        for line in lines:
            if line.startswith(f"{key} "):
                return [(controller, file, line)]
        words = [word.partition("=")[0] for word in rest.split()]  # this device had no limit, or no weight of its own
        return [(controller, file, f"{key} " + " ".join(f"{word}=max" for word in words) if "=" in rest else f"{key} default")]

    def _ordered(self, path: str, writes: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
        """The burst may never be above the quota: lower it first, raise it last."""
        wanted = next((value for _c, file, value in writes if file == "cpu.max.burst"), "")
        burst = parse_decimal(wanted)
        if burst is None or burst > int(_read(f"{self._root}{path}/cpu.max.burst") or 0):
            return writes
        return sorted(writes, key=lambda write: write[1] != "cpu.max.burst")

    def _wait(self, path: str, state: str) -> bool:
        """Until cgroup.events says `state`, or its cgroup has gone; False when it takes too long."""
        return _poll(f"{self._root}{path}/cgroup.events", lambda lines: state in lines, _SECONDS)


def _mount_point() -> str:
    with open("/proc/self/mountinfo") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            if after.startswith("cgroup2 "):
                return before.split(" ")[4]
    raise FailedPrecondition("cgroup v2 is not mounted")


def _check(path: str) -> None:
    if not path.startswith("/") or path == "/" or any(part in ("..", ".", "") for part in path.split("/")[1:]):
        raise InvalidArgument(f"linux.cgroupsPath: {path!r} must be absolute, without '..'")


def _levels(path: str) -> list[str]:
    """ "/a/b" → ["/a", "/a/b"]"""
    parts = path.split("/")
    return ["/".join(parts[:length]) for length in range(2, len(parts) + 1)]


def _memory_statistics(base: str) -> dict[str, int]:
    current = _read(f"{base}/memory.current")
    if not current:
        return {}
    memory, detail = int(current), _table(f"{base}/memory.stat")
    working = max(0, memory - detail.get("inactive_file", 0))
    found = {
        "memory_usage": memory,
        "memory_working_set": working,
        "memory_rss": detail.get("anon", 0),
        "memory_available": _room(f"{base}/memory.max", working),
        "memory_page_faults": detail.get("pgfault", 0),
        "memory_major_page_faults": detail.get("pgmajfault", 0),
    }
    swap = _read(f"{base}/memory.swap.current")
    if swap:
        found |= {"swap_usage": int(swap), "swap_available": _room(f"{base}/memory.swap.max", int(swap))}
    return found


def _room(file: str, used: int) -> int:
    """What is left below the limit in `file`; 0: there is no limit."""
    limit = parse_decimal(_read(file))
    return 0 if limit is None else max(0, limit - used)


def _pids_statistics(base: str) -> dict[str, int]:
    current, limit = _read(f"{base}/pids.current"), _read(f"{base}/pids.max")
    return {"pids_current": int(current), "pids_limit": parse_decimal(limit) or 0} if current else {}


def _remove(directory: str) -> None:
    """rmdir; a cgroup that a process is just leaving is waited for."""
    deadline = time.monotonic() + _SECONDS
    while True:
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise from_oserror(error, f"removing cgroup {directory}") from error
            _poll(f"{directory}/cgroup.events", lambda _lines: False, 0.01)
        else:
            return


def _poll(file: str, is_reached: Callable[[list[str]], bool], seconds: float) -> bool:
    """Read `file` after each of its events until `is_reached` says so of its lines, or it has gone."""
    deadline = time.monotonic() + seconds
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        poller = select.poll()
        poller.register(descriptor, select.POLLPRI)
        while True:
            try:
                lines = os.pread(descriptor, 4096, 0).decode().split("\n")
            except OSError:  # ENODEV: removed
                return True
            if is_reached(lines):
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            poller.poll(left * 1000)
    finally:
        os.close(descriptor)


def _table(file: str) -> dict[str, int]:
    return {key: int(value) for key, value in (line.split(" ") for line in _read(file).split("\n") if line)}


def _read(file: str) -> str:
    """Its text; "" when it is not there, or its cgroup has just gone."""
    try:
        with open(file) as opened:
            return opened.read().strip()
    except OSError:
        return ""


def _put(file: str, text: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode() or b"\n")  # nothing written would change nothing
    finally:
        os.close(descriptor)
