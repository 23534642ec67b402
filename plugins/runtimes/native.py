"""trivet.runtime native: our own containers, in one monitor per pod."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import select
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from runtime_core.errors import (
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    TrivetError,
    Unavailable,
    from_name,
    from_oserror,
)
from runtime_core.interfaces.runtime import (
    ContainerExit,
    ContainerProcess,
    ContainerSpec,
    ExecResult,
    PodLost,
    PodSpec,
    RuntimeContext,
)
from runtime_core.kernel import entry_point, mounts
from runtime_core.kernel.readable import is_readable
from runtime_core.kernel.seccomp import FilterCache
from runtime_core.monitor import exit_record
from runtime_core.monitor.client import Connection, Monitors
from runtime_core.monitor.pin import unpin

_MONITOR = "runtime_core.monitor.server:main"
_READY_SECONDS = 30.0
_STATE_SECONDS = 10.0  # one monitor that hangs must not keep the daemon from serving the others
_SLICE = 86400.0  # poll(2) counts milliseconds in 31 bits
_MOST_OUTPUT = 16 * 1024 * 1024
_KILLED = 137
_DRAIN_READS = 64  # more than a pipe holds: a child that writes on and on is not waited for
#: no exit code of a process
_LOST = 256
_TELL_AGAIN_SECONDS = 1.0
#: cgroups of one pod that are emptied and removed at once: it is waiting for the kernel
_AT_ONCE = 16


class NativeRuntime:
    """See runtime_core.interfaces.runtime."""

    def __init__(self, context: RuntimeContext) -> None:
        for key in context.settings:
            raise InvalidArgument(f"settings: the runtime native does not know {key!r}")
        self._context = context
        self._cgroups = entry_point.load(context.cgroup_manager)()
        self._filters = FilterCache(Path(context.directory, "seccomp"))
        self._monitors = Monitors(self._event, self._lost)
        self._directories: dict[str, str] = {}
        self._execs: dict[str, _Exec] = {}
        self._exec_numbers = itertools.count(1)

    # -- pods

    def open_pod(self, pod: PodSpec) -> tuple[int, int]:
        for directory in (pod.directory, f"{pod.directory}/rootfs"):
            os.makedirs(directory, 0o700, exist_ok=True)
        argument = {"pod": _to_json(pod), "cgroups": self._context.cgroup_manager}
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            try:
                self._context.launcher.fork(_MONITOR, argument, [writer])
            finally:
                os.close(writer)
            answer = _read_ready(reader, pod.id)
            self._directories[pod.id] = pod.directory
            self._monitors.connect(pod.id, pod.directory)
        except PodLost as error:
            self.close_pod(pod)
            raise Unavailable(f"pod {pod.id} was lost while it was being opened: {error}") from error
        except BaseException:
            self.close_pod(pod)
            raise
        finally:
            os.close(reader)
        return int(answer["ready"]), int(answer["init"])

    def close_pod(self, pod: PodSpec) -> None:
        with contextlib.suppress(PodLost, Unavailable, DeadlineExceeded):
            connection = self._connection(pod)
            connection.is_closing = True
            connection.call("shutdown", {})
            self._monitors.forget(pod.id)
        self._destroy_all(record["cgroup"] for record in exit_record.read_all(f"{pod.directory}/containers").values())
        if pod.cgroup_path:
            self._cgroups.destroy(pod.cgroup_path)
        if pod.netns_path:
            _unpin(pod.netns_path)
        mounts.unmount_below(pod.directory)
        shutil.rmtree(pod.directory, ignore_errors=True)
        self._directories.pop(pod.id, None)

    def recover_pod(self, pod: PodSpec) -> list[ContainerProcess]:
        self._directories[pod.id] = pod.directory
        try:
            connection = self._monitors.connect(pod.id, pod.directory)
        except PodLost as error:
            self._report_exits(pod.id, pod.directory)
            raise NotFound(str(error)) from error
        state = connection.call("state", {}, timeout=_STATE_SECONDS)
        return [_process(entry) for entry in state["containers"]]

    # -- containers

    def create(self, container: ContainerSpec) -> int:
        spec = dict(container.spec)
        spec["linux"] = dict(spec["linux"])
        profile = spec["linux"].pop("seccomp", None)
        descriptors = []
        if profile and (profile.get("defaultAction") != "SCMP_ACT_ALLOW" or profile.get("syscalls")):
            descriptors.append(_memfd(self._filters.program(profile)))
        request = {**_to_json(container), "spec": spec}
        try:
            result = self._monitors.get(container.pod_id).call("create", {"container": request}, descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return int(result["pid"])

    def start(self, pod_id: str, container_id: str) -> int:
        return int(self._call(pod_id, "start", container_id)["started_at"])

    def kill(self, pod_id: str, container_id: str, signal: int, *, everything: bool = False) -> None:
        self._call(pod_id, "kill", container_id, signal=signal, everything=everything)

    def delete(self, pod_id: str, container_id: str) -> None:
        try:
            self._call(pod_id, "delete", container_id)
        except PodLost:
            directory = self._directories.get(pod_id, "")
            records = exit_record.read_all(f"{directory}/containers")
            if container_id in records:
                self._cgroups.destroy(records[container_id]["cgroup"])
                exit_record.remove(f"{directory}/containers", container_id)
                exit_record.remove(f"{directory}/exits", container_id)

    def exec_sync(self, pod_id: str, container_id: str, process: dict[str, Any], timeout: float | None) -> ExecResult:
        run = _Exec(pod_id, f"{os.getpid()}-{next(self._exec_numbers)}")
        self._execs[run.id] = run
        try:
            run.pid = int(self._call(pod_id, "exec", container_id, run.writers, process=process, exec_id=run.id)["pid"])
            run.close_writers()
            if not run.collect(timeout):
                self._call(pod_id, "exec_kill", container_id, pid=run.pid)
                raise DeadlineExceeded(f"command {process['args']!r} did not end within {timeout} s")
            return run.result()
        finally:
            del self._execs[run.id]
            run.close()

    def update(self, pod_id: str, container_id: str, resources: dict[str, Any]) -> None:
        record = exit_record.read_all(f"{self._directories[pod_id]}/containers").get(container_id)
        if record is None:
            raise NotFound(f"container {container_id} is not in pod {pod_id}")
        self._cgroups.update(record["cgroup"], resources)

    def reopen_log(self, pod_id: str, container_id: str) -> None:
        self._call(pod_id, "reopen_log", container_id)

    def features(self) -> dict[str, Any]:
        return {
            "ociVersionMin": "1.0.0",
            "ociVersionMax": "1.2.0",
            "mountOptions": ["bind", "rbind", "ro", "rro", "rw", "nosuid", "nodev", "noexec", "rprivate", "rslave", "rshared"],
            "linux": {
                "namespaces": ["pid", "mount", "network", "ipc", "uts", "cgroup", "user"],
                "mountExtensions": {"idmap": {"enabled": True}},
            },
        }

    # -- what monitors say

    def _call(
        self, pod_id: str, operation: str, container_id: str, descriptors: tuple[int, ...] = (), **request: Any
    ) -> dict[str, Any]:
        connection = self._monitors.get(pod_id)
        return connection.call(operation, {"container_id": container_id, **request}, descriptors)

    def _connection(self, pod: PodSpec) -> Connection:
        try:
            return self._monitors.get(pod.id)
        except PodLost:
            return self._monitors.connect(pod.id, pod.directory)

    def _event(self, pod_id: str, message: dict[str, Any]) -> None:
        kind = message.pop("event")
        if kind == "exit":
            _notify(self._context.on_exit, ContainerExit(**message))
        elif kind == "exec_exit":
            run = self._execs.get(message["exec_id"])
            if run is not None:
                run.ended(message["exit_code"])
        elif kind == "lost":
            for run in list(self._execs.values()):
                if run.pod_id == pod_id:
                    run.ended(_LOST)

    def _lost(self, connection: Connection) -> None:
        _notify(self._context.on_pod_lost, connection.pod_id)
        self._report_exits(connection.pod_id, self._directories.get(connection.pod_id, ""))

    def _report_exits(self, pod_id: str, directory: str) -> None:
        """Kill what a dead monitor left, and tell how each of its containers ended as soon as it has."""
        ends = exit_record.read_all(f"{directory}/exits")
        killed = "the pod's monitor died, and the container was killed with it"

        def tell(container_id: str, cgroup: str) -> None:
            message = killed
            try:
                self._cgroups.destroy(cgroup)
            except TrivetError as error:  # whoever removes the container tries again
                message = f"{killed}; {error}"
            end = ends.get(container_id) or {
                "pod_id": pod_id,
                "container_id": container_id,
                "exit_code": _KILLED,
                "finished_at": time.time_ns(),
                "message": message,
            }
            _notify(self._context.on_exit, ContainerExit(**end))

        records = exit_record.read_all(f"{directory}/containers")
        _at_once(tell, [(container_id, record["cgroup"]) for container_id, record in records.items()])

    def _destroy_all(self, cgroups: Iterable[str]) -> None:
        _at_once(self._cgroups.destroy, [(path,) for path in cgroups])


class _Exec:
    """One ExecSync: its pipes, read by the thread that serves the call."""

    def __init__(self, pod_id: str, number: str) -> None:
        self.pod_id, self.id, self.pid, self._exit_code = pod_id, number, 0, -1
        pipes = [os.pipe2(os.O_CLOEXEC) for _stream in range(2)]
        self._readers = [reader for reader, _writer in pipes]
        #: the process's stdin, stdout and stderr
        self.writers: tuple[int, ...] = (
            os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), *(writer for _reader, writer in pipes),
        )  # fmt: skip
        self._output: dict[int, bytearray] = {reader: bytearray() for reader in self._readers}
        self._wake, self._waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._lock = threading.Lock()

    def ended(self, exit_code: int) -> None:
        """`exit_code`, or _LOST: nobody will ever tell it."""
        with self._lock:
            self._exit_code = exit_code
            if self._waker >= 0:
                os.write(self._waker, b"x")

    def collect(self, timeout: float | None) -> bool:
        """Read until the process has ended and its pipes are empty; False at the time-out."""
        deadline = None if timeout is None else time.monotonic() + timeout
        poller = select.poll()
        for descriptor in (*self._readers, self._wake):
            poller.register(descriptor, select.POLLIN)
        is_open, drained = set(self._readers), 0
        while True:
            has_ended = self._exit_code >= 0
            drained += has_ended
            wait = 0.0 if has_ended else None if deadline is None else max(0.0, deadline - time.monotonic())
            if has_ended and (not is_open or drained > _DRAIN_READS):
                return True
            ready = [fd for fd, _event in poller.poll(None if wait is None else min(wait, _SLICE) * 1000) if fd != self._wake]
            if not ready and has_ended:
                return True  # a background child may hold a pipe open: that is not waited for
            if not has_ended and deadline is not None and time.monotonic() >= deadline:
                return False
            for descriptor in ready:
                data = os.read(descriptor, 65536)
                if not data:
                    poller.unregister(descriptor)
                    is_open.discard(descriptor)
                room = _MOST_OUTPUT - len(self._output[descriptor])
                self._output[descriptor] += data[:room]
            if self._exit_code >= 0 and not has_ended:
                poller.unregister(self._wake)

    def result(self) -> ExecResult:
        if self._exit_code == _LOST:
            raise PodLost(f"the monitor of pod {self.pod_id} has died, and the command with it")
        stdout, stderr = (bytes(self._output[reader]) for reader in self._readers)
        return ExecResult(exit_code=self._exit_code, stdout=stdout, stderr=stderr)

    def close_writers(self) -> None:
        for descriptor in self.writers:
            os.close(descriptor)
        self.writers = ()

    def close(self) -> None:
        self.close_writers()
        with self._lock:
            waker, self._waker = self._waker, -1
        for descriptor in (*self._readers, self._wake, waker):
            os.close(descriptor)


def _notify(listener: Callable[[Any], None], news: Any) -> None:
    """Again in a while, when it cannot be taken now: the disk of its records may be full."""
    try:
        listener(news)
    except TrivetError:
        again = threading.Timer(_TELL_AGAIN_SECONDS, _notify, (listener, news))
        again.daemon = True
        again.start()


def _at_once(work: Callable[..., None], calls: Sequence[tuple[Any, ...]]) -> None:
    """All of them, some at a time; then the first error is raised."""
    if len(calls) <= 1:
        for arguments in calls:
            work(*arguments)
        return
    with ThreadPoolExecutor(min(_AT_ONCE, len(calls)), thread_name_prefix="cleanup") as pool:
        futures = [pool.submit(work, *arguments) for arguments in calls]
    for future in futures:
        future.result()


def _read_ready(reader: int, pod_id: str) -> dict[str, Any]:
    if not is_readable(reader, _READY_SECONDS):
        raise DeadlineExceeded(f"the monitor of pod {pod_id} is not ready after {_READY_SECONDS} s")
    content = os.read(reader, 65536)
    if not content:
        raise Unavailable(f"the monitor of pod {pod_id} died at its start")
    answer: dict[str, Any] = json.loads(content)
    if "error" in answer:
        raise from_name(answer["error"]["kind"], answer["error"]["message"])
    return answer


def _process(entry: dict[str, Any]) -> ContainerProcess:
    end = entry.pop("exit")
    return ContainerProcess(**entry, exit=ContainerExit(**end) if end else None)


def _to_json(value: Any) -> dict[str, Any]:
    """A dataclass as a JSON object, one level deep; deeper ones as they need it."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        if dataclasses.is_dataclass(item):
            item = _to_json(item)
        elif isinstance(item, (tuple, list)):
            item = [_to_json(part) if dataclasses.is_dataclass(part) else part for part in item]
        elif hasattr(item, "items"):
            item = dict(item)
        found[field.name] = item
    return found


def _memfd(content: bytes) -> int:
    descriptor = os.memfd_create("trivet-filter", os.MFD_CLOEXEC)
    os.write(descriptor, content)
    return descriptor


def _unpin(path: str) -> None:
    try:
        unpin(path)
    except OSError as error:
        raise from_oserror(error, f"unpinning network namespace {path}") from error
