"""What all pod operations share: drivers, records, the ledger, and what monitors report."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from runtime_core.errors import FailedPrecondition, NotFound, Unavailable
from runtime_core.images.store import Images
from runtime_core.interfaces.network import Network, PodNetwork
from runtime_core.interfaces.runtime import ContainerExit, PodSpec, Runtime
from runtime_core.interfaces.snapshotter import Snapshotter
from runtime_core.sandbox import image_volumes
from runtime_core.sandbox.records import (
    ContainerRecord,
    SandboxRecord,
    SandboxSpec,
    State,
    decode_container,
    decode_sandbox,
    encode,
)
from runtime_core.store.database import Database
from runtime_core.store.ledger import Entry, Ledger
from runtime_core.store.locks import Locks
from runtime_core.store.records import Collection

_START_FAILED = 128
#: the lock under which pods leave their cgroup parents to each other
CGROUP_PARENTS = "cgroup-parents"
Found = TypeVar("Found", SandboxRecord, ContainerRecord)


@dataclass(frozen=True, slots=True, kw_only=True)
class Directories:
    """Where this daemon keeps things: `root` survives a reboot, `state` does not."""

    root: Path
    state: Path

    def pod(self, sandbox_id: str) -> str:
        """The pod's directory below `state`."""
        return str(self.state / "pods" / sandbox_id)

    def netns(self, sandbox_id: str) -> str:
        """The file to which the pod's network namespace is bound."""
        return str(self.state / "netns" / sandbox_id)

    def image_volumes(self, container_id: str) -> str:
        """Where the container's volumes of its image are; they survive a reboot."""
        return str(self.root / "image-volumes" / container_id)


class _End:
    """Of one container: what was told, and whether it stands in the record."""

    __slots__ = ("recorded", "told")

    def __init__(self) -> None:
        self.recorded = threading.Event()
        self.told: ContainerExit | None = None


class Node:
    """One daemon's pods. `runtimes` and `network` are set once, before anything is served."""

    def __init__(
        self, directories: Directories, database: Database, images: Images, snapshotter: Snapshotter, cgroups: Any
    ) -> None:
        self.directories, self.images = directories, images
        self.snapshotter, self.cgroups = snapshotter, cgroups
        self.runtimes: Mapping[str, Runtime] = {}
        self.network: Network
        self.sandboxes: Collection[SandboxRecord] = Collection(database, "sandbox", encode=encode, decode=decode_sandbox)
        self.containers: Collection[ContainerRecord] = Collection(database, "container", encode=encode, decode=decode_container)
        self.ledger = Ledger(
            database,
            {
                "pod": self._release_pod,
                "network": self._release_network,
                "cgroup-parent": self._release_cgroup_parent,
                "snapshot": lambda entry: self.snapshotter.remove(entry.reference),
                "image-volumes": lambda entry: image_volumes.remove(self.directories.image_volumes(entry.reference)),
                "container": self._release_container,
            },
        )
        self.locks = Locks()
        self._ends: dict[str, _End] = {}
        #: pods that have no record yet: their cgroup parents, and which of them are lost already
        self._opening: dict[str, str] = {}
        self._lost: set[str] = set()
        #: pods that have given up their cgroup parents and are not gone yet
        self._leaving: set[str] = set()
        self._opening_lock = threading.Lock()

    # -- looking up

    def sandbox(self, sandbox_id: str) -> SandboxRecord:
        """By id or an unambiguous beginning of it."""
        return _find_by_prefix(self.sandboxes, sandbox_id, "pod sandbox")

    def container(self, container_id: str) -> ContainerRecord:
        """By id or an unambiguous beginning of it; NotFound otherwise."""
        return _find_by_prefix(self.containers, container_id, "container")

    def containers_of(self, sandbox_id: str) -> list[ContainerRecord]:
        """Records of the pod's containers."""
        return [record for record in self.containers.all() if record.sandbox_id == sandbox_id]

    def runtime(self, handler: str) -> Runtime:
        """The runtime of a handler; FailedPrecondition when it is not configured."""
        runtime = self.runtimes.get(handler)
        if runtime is None:
            # Not NotFound: a kubelet would take the pod that it asks about for gone.
            raise FailedPrecondition(f"runtime handler {handler!r} is not configured")
        return runtime

    def runtime_of(self, sandbox_id: str) -> Runtime:
        """The runtime of a pod; NotFound for an unknown one."""
        return self.runtime(self.sandboxes.get(sandbox_id).spec.handler)

    # -- ends of containers

    def expect_exit(self, container_id: str) -> None:
        """From here on an end that is told is kept, and can be waited for."""
        self._ends[container_id] = _End()

    def wait_for_exit(self, container_id: str, timeout: float | None) -> bool:
        end = self._ends.get(container_id)
        return end is None or end.recorded.wait(timeout)

    def forget_exit(self, container_id: str) -> None:
        """After the removal: nobody will wait any more. Idempotent."""
        self._ends.pop(container_id, None)

    def container_created(self, record: ContainerRecord) -> None:
        """Put its record. An end that was told before there was one is written into it now."""
        self.containers.put(record.id, record)
        end = self._ends[record.id]
        if end.told is not None:
            self.container_ended(end.told)

    def container_started(self, container_id: str, started_at: int) -> None:
        """Record that it runs; `started_at` in nanoseconds since the epoch."""

        def change(record: ContainerRecord) -> ContainerRecord:
            state = record.state if record.state == State.EXITED else State.RUNNING
            return replace(record, state=state, started_at=started_at)

        self.containers.update(container_id, change)

    def container_failed(self, container_id: str, message: str) -> None:
        """It could not be started."""

        def change(record: ContainerRecord) -> ContainerRecord:
            return replace(
                record,
                state=State.EXITED,
                started_at=record.started_at or time.time_ns(),
                finished_at=time.time_ns(),
                exit_code=_START_FAILED,
                reason="StartError",
                message=message,
            )

        self.containers.update(container_id, change)

    def container_ended(self, end: ContainerExit) -> None:
        """What a monitor reports; told twice, it is heard once.

        Of a container without a record it is kept for `container_created`, when that is to come: it looks after the
        record is there, and so one of the two has both.
        """
        expected = self._ends.get(end.container_id)
        if expected is not None:
            expected.told = end

        def change(record: ContainerRecord) -> ContainerRecord:
            if record.state == State.EXITED:
                return record
            reason = "OOMKilled" if end.oom_killed else "Completed" if end.exit_code == 0 else "Error"
            return replace(
                record,
                state=State.EXITED,
                finished_at=end.finished_at,
                exit_code=end.exit_code,
                reason=reason,
                message=end.message,
            )

        try:
            self.containers.update(end.container_id, change)
        except NotFound:
            return  # not recorded yet, or removed meanwhile
        if expected is not None:
            expected.recorded.set()

    # -- pods and the ends of their monitors

    @contextmanager
    def opening(self, spec: SandboxSpec) -> Iterator[list[str]]:
        """Within it the pod, which has no record yet, counts as one that is in its cgroup parent, and a loss of it is
        kept for `pod_opened`. Gives that parent and those above it that do not exist, the highest first."""
        with self.locks.hold(CGROUP_PARENTS):
            self._opening[spec.id] = spec.cgroup_parent
            missing = self._missing_cgroups(spec.cgroup_parent)
        try:
            yield missing
        except BaseException:
            with self.locks.hold(CGROUP_PARENTS):
                self._opening.pop(spec.id, None)
                self._leaving.discard(spec.id)
            self.ledger.sweep(spec.id)  # what another pod left to it while it was given up
            raise
        finally:
            self._lost.discard(spec.id)

    def _missing_cgroups(self, path: str) -> list[str]:
        missing: list[str] = []
        while path and not self.cgroups.exists(path):
            missing.insert(0, path)
            path = path.rpartition("/")[0]
        return missing

    def pod_opened(self, record: SandboxRecord) -> None:
        """Put the record of a pod that is ready; Unavailable when its monitor has died before there was one."""
        with self._opening_lock:
            if record.spec.id in self._lost:
                raise Unavailable(f"the monitor of pod {record.spec.id} died while the pod was being opened")
            self.sandboxes.put(record.spec.id, record)
            del self._opening[record.spec.id]

    def pod_lost(self, sandbox_id: str) -> None:
        """A monitor has died: its pod is no longer ready. The kubelet will stop it and make another."""
        with self._opening_lock:
            if sandbox_id in self._opening:
                self._lost.add(sandbox_id)
                return
        try:
            self.sandboxes.update(sandbox_id, lambda record: replace(record, is_ready=False))
        except NotFound:
            return

    def sandbox_removed(self, sandbox_id: str) -> None:
        """Drop its record: no pod leaves anything to it any more."""
        with self.locks.hold(CGROUP_PARENTS):
            self.sandboxes.delete(sandbox_id)
            self._leaving.discard(sandbox_id)

    # -- releasing what the ledger names

    def _release_pod(self, entry: Entry) -> None:
        document = json.loads(entry.reference)
        handler = document.pop("handler")
        self.runtime(handler).close_pod(PodSpec(**document))

    def _release_network(self, entry: Entry) -> None:
        self.network.detach(PodNetwork(**json.loads(entry.reference)))

    def _release_cgroup_parent(self, entry: Entry) -> None:
        """Remove it, or leave that to another pod that is in it; two that go at once do not leave it to each other."""
        below = f"{entry.reference}/"
        with self.locks.hold(CGROUP_PARENTS):
            parents = {**self._opening, **{record.spec.id: record.spec.cgroup_parent for record in self.sandboxes.all()}}
            if entry.owner in parents:
                self._leaving.add(entry.owner)
            for sandbox_id, parent in parents.items():
                if sandbox_id not in self._leaving and sandbox_id != entry.owner and f"{parent}/".startswith(below):
                    self.ledger.acquire(sandbox_id, ("cgroup-parent", entry.reference))
                    return
            if not self.cgroups.processes(entry.reference):
                self.cgroups.destroy(entry.reference)

    def _release_container(self, entry: Entry) -> None:
        document = json.loads(entry.reference)
        self.runtime(document["handler"]).delete(document["sandbox"], entry.owner)


def pod_reference(pod: PodSpec, handler: str) -> str:
    """What is needed to close a pod of which nothing else is known."""
    document = {key: getattr(pod, key) for key in ("id", "directory", "netns_path", "cgroup_path")}
    return json.dumps({**document, "handler": handler})


def network_reference(network: PodNetwork) -> str:
    return json.dumps(asdict(network))


def _find_by_prefix(collection: Collection[Found], key: str, what: str) -> Found:
    found = collection.find(key)
    if found is not None:
        return found
    if not key:
        raise NotFound(f"{what} id is empty")
    matching = [record for record in collection.all() if _id(record).startswith(key)]
    if len(matching) != 1:
        raise NotFound(f"{what} {key!r} does not exist" if not matching else f"{what} {key!r} is ambiguous")
    return matching[0]


def _id(record: SandboxRecord | ContainerRecord) -> str:
    return record.spec.id if isinstance(record, SandboxRecord) else record.id
