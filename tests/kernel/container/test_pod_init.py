"""PID 1 of a pod with a shared PID namespace."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime_core.container import pod_init
from runtime_core.errors import NotFound
from runtime_core.kernel import namespaces


@pytest.fixture
def first() -> Iterator[int]:
    pid = pod_init.fork()
    yield pid
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_it_has_nothing(first: int) -> None:
    """No capability, no descriptor, an empty root: what a container finds at /proc/1 is worth nothing."""
    status = Path(f"/proc/{first}/status").read_text()
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert f"{name}:\t{'0' * 16}\n" in status
    assert {entry for entry in os.listdir(f"/proc/{first}/fd") if int(entry) > 2} == set()
    assert os.listdir(f"/proc/{first}/root") == []


def test_it_reaps_orphans(first: int) -> None:
    """A process whose parent has ended in the namespace leaves no zombie."""
    pidfd = os.pidfd_open(first)
    child, child_fd = namespaces.fork_into(pidfd, 0)
    if child == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.waitpid(child, 0)
    os.close(child_fd)
    os.close(pidfd)
    children = Path(f"/proc/{first}/task/{first}/children")
    until = time.monotonic() + 5
    while children.read_text() and time.monotonic() < until:
        os.sched_yield()
    assert children.read_text() == ""


def test_ordinary_signals_do_not_end_it(first: int) -> None:
    """A pod ends by SIGKILL alone."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(first, number)
    os.kill(first, 0)
    assert "State:\tZ" not in Path(f"/proc/{first}/status").read_text()


def test_what_goes_wrong_is_told() -> None:
    """What fails in it is an error of the caller's, and no process is left."""

    def refuse() -> None:
        raise NotFound("no such cgroup")

    with pytest.raises(NotFound, match="no such cgroup"):
        pod_init.fork(refuse)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_it_joins_its_cgroup_itself(tmp_path: Path) -> None:
    """The callback runs in the new process."""
    seen = tmp_path / "seen"

    def join() -> None:
        seen.write_text(str(os.getpid()))

    pid = pod_init.fork(join)
    assert seen.read_text() == "1"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
