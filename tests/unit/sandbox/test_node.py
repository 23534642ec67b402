"""What pods leave to each other and what is told of them too early, in every order of events."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime_core.errors import Unavailable
from runtime_core.interfaces.runtime import ContainerExit
from runtime_core.sandbox.node import Directories, Node
from runtime_core.sandbox.records import ContainerRecord, SandboxRecord, SandboxSpec, State
from runtime_core.store.database import Database


class Cgroups:
    """The paths that exist."""

    def __init__(self) -> None:
        self.present: set[str] = set()

    def exists(self, path: str) -> bool:
        return path in self.present

    def processes(self, _path: str) -> list[int]:
        return []

    def destroy(self, path: str) -> None:
        self.present = {present for present in self.present if not f"{present}/".startswith(f"{path}/")}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    database = Database(tmp_path / "root")
    unused: Any = None
    yield Node(Directories(root=tmp_path, state=tmp_path), database, unused, unused, Cgroups())
    database.close()


def _spec(name: str) -> SandboxSpec:
    return SandboxSpec(id=name, name=name, metadata={"name": name}, cgroup_parent=f"/top/{name}")


def _record(name: str) -> SandboxRecord:
    return SandboxRecord(spec=_spec(name), is_ready=True, created_at=1, directory="", netns_path="", monitor_pid=1)


def _open(node: Node, name: str) -> None:
    with node.opening(_spec(name)) as missing:
        node.ledger.acquire(name, *(("cgroup-parent", path) for path in missing))
        node.cgroups.present |= set(missing)
        node.pod_opened(_record(name))


def test_two_that_go_at_once_do_not_leave_it_to_each_other(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second goes while the first has released all and not yet dropped the rows."""
    _open(node, "one")
    _open(node, "two")
    node.ledger.acquire("two", ("cgroup-parent", "/top"))
    forget = node.ledger.forget

    def forget_later(entries: Any) -> None:
        monkeypatch.setattr(node.ledger, "forget", forget)
        node.ledger.sweep("two")
        forget(entries)

    monkeypatch.setattr(node.ledger, "forget", forget_later)
    node.ledger.sweep("one")
    node.sandbox_removed("one")
    node.sandbox_removed("two")
    assert (node.cgroups.present, node.ledger.held()) == (set(), [])


def test_the_last_one_leaves_it_to_who_is_being_opened(node: Node) -> None:
    """It has no record yet, and found the cgroup there."""
    _open(node, "one")
    with node.opening(_spec("two")) as missing:
        assert missing == ["/top/two"]
        node.ledger.sweep("one")
        node.sandbox_removed("one")
        assert "/top" in node.cgroups.present
        node.pod_opened(_record("two"))
    node.ledger.sweep("two")
    node.sandbox_removed("two")
    assert (node.cgroups.present, node.ledger.held()) == (set(), [])


def test_what_is_left_to_one_that_fails_goes_too(node: Node) -> None:
    """Also when it comes after that one has released all it had."""
    _open(node, "one")

    def fail() -> None:
        with node.opening(_spec("two")):
            node.ledger.sweep("two")
            node.ledger.sweep("one")
            node.sandbox_removed("one")
            raise Unavailable("no network")

    with pytest.raises(Unavailable, match="no network"):
        fail()
    assert (node.cgroups.present, node.ledger.held()) == (set(), [])


def test_a_pod_that_is_lost_before_it_is_recorded_is_never_ready(node: Node) -> None:
    """Afterwards it is, and not ready."""
    with pytest.raises(Unavailable, match="died while"), node.opening(_spec("early")):
        node.pod_lost("early")
        node.pod_opened(_record("early"))
    assert node.sandboxes.all() == []
    _open(node, "late")
    node.pod_lost("late")
    assert not node.sandboxes.get("late").is_ready
    node.pod_lost("nobody")


@pytest.mark.parametrize("is_early", [True, False])
def test_an_end_is_recorded_whenever_it_is_told(node: Node, is_early: bool) -> None:
    """Before there is a record as well as after; who waits for it goes on then."""
    end = ContainerExit(pod_id="p", container_id="c", exit_code=7, finished_at=5)
    record = ContainerRecord(
        id="c", name="c", sandbox_id="p", metadata={}, image="", image_ref="", labels={}, annotations={}, mounts=[], log_path="",
        cgroup_path="", stop_signal=15, process={}, resources={}, created_at=1,
    )  # fmt: skip
    node.expect_exit("c")
    if is_early:
        node.container_ended(end)
    node.container_created(record)
    if not is_early:
        node.container_ended(end)
    present = node.containers.get("c")
    assert (present.state, present.exit_code, node.wait_for_exit("c", 0)) == (State.EXITED, 7, True)
