"""trivet-cri as its clients see it: through gRPC alone, on private directories."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from cri.api.v1 import api_pb2 as api
from e2e.wait import wait_for
from runtime_core.cgroups.detect import detect_version
from runtime_core.kernel import mounts, syscalls
from tests.support.cri_client import Client

_ROOT = Path(__file__).parents[3]
_MEMORY_LIMIT = {"v1": "/sys/fs/cgroup/memory/memory.limit_in_bytes", "v2": "/sys/fs/cgroup/memory.max"}


@pytest.mark.parametrize(
    ("script", "code", "reason"), [("exit 0", 0, "Completed"), ("exit 3", 3, "Error"), ("kill -9 $$; sleep 9", 137, "Error")]
)
def test_the_end_has_its_code_and_reason(client: Client, pod: str, script: str, code: int, reason: str) -> None:
    """And times that are in order."""
    # As PID 1 of its own namespace a process cannot kill itself: the child of a shell can.
    status = client.ended(client.run(pod, script if "kill" not in script else f"sh -c '{script}'; exit $?"))
    assert (status.exit_code, status.reason) == (code, reason)
    assert 0 < status.created_at <= status.started_at <= status.finished_at


def test_a_container_that_wants_too_much_memory_is_oomkilled(client: Client, pod: str) -> None:
    """The reason says so."""
    resources = api.LinuxContainerResources(memory_limit_in_bytes=16 * 1024 * 1024)
    status = client.ended(client.run(pod, "x=12345678; while :; do x=$x$x; done", resources=resources))
    assert status.reason == "OOMKilled"
    assert status.exit_code != 0


def test_a_program_that_does_not_exist_is_a_start_error(client: Client, pod: str) -> None:
    """The call fails with its name, and the container is ended, not stuck."""
    container = client.create(pod, "", command=["/no/such/program"])
    with pytest.raises(grpc.RpcError) as refused:
        client.runtime.StartContainer(api.StartContainerRequest(container_id=container))
    assert "/no/such/program" in refused.value.details()
    status = client.status(container)
    assert (status.state, status.exit_code, status.reason) == (api.CONTAINER_EXITED, 128, "StartError")


def test_exec_sync_gives_code_and_both_streams(client: Client, pod: str) -> None:
    """Also while the container is busy."""
    container = client.run(pod, "sleep 100")
    answer = client.exec(container, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (answer.exit_code, answer.stdout, answer.stderr) == (7, b"out\n", b"err\n")


def test_exec_sync_ends_at_its_time_out_with_all_it_started(client: Client, pod: str) -> None:
    """DEADLINE_EXCEEDED, and no process of it is left."""
    container = client.run(pod, "sleep 100")
    with pytest.raises(grpc.RpcError) as refused:
        client.exec(container, "sh", "-c", "sleep 77 & sleep 78", timeout=1)
    assert refused.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert b"sleep\x00100" in client.commands(container)
    wait_for("they are gone", lambda: b"sleep\x007" not in client.commands(container), 10)


def test_a_background_child_does_not_hold_exec_sync(client: Client, pod: str) -> None:
    """Its pipe stays open, and nobody waits for it."""
    container = client.run(pod, "sleep 100")
    started = time.monotonic()
    answer = client.exec(container, "sh", "-c", "sleep 30 & echo done")
    assert answer.stdout == b"done\n"
    assert time.monotonic() - started < 10


def test_a_log_is_reopened_between_lines(client: Client, pod: str) -> None:
    """What comes after goes to the new file; an ended container's log is not made anew."""
    container = client.run(pod, "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.05; done")
    wait_for("lines", lambda: len(client.contents()) > 2 if (client.logs / "c.log").exists() else False)
    (client.logs / "c.log").rename(client.logs / "old.log")
    client.runtime.ReopenContainerLog(api.ReopenContainerLogRequest(container_id=container))
    wait_for("more lines", lambda: len(client.contents()) > 2)
    client.runtime.StopContainer(api.StopContainerRequest(container_id=container, timeout=0))
    lines = client.contents("old.log") + client.contents()
    assert lines == [f"line {number}" for number in range(1, len(lines) + 1)]
    (client.logs / "c.log").unlink()
    with pytest.raises(grpc.RpcError):
        client.runtime.ReopenContainerLog(api.ReopenContainerLogRequest(container_id=container))
    assert not (client.logs / "c.log").exists()


def test_limits_change_while_it_runs(client: Client, pod: str) -> None:
    """All of them or none; the status tells the new ones."""
    container = client.run(pod, "sleep 100", resources=api.LinuxContainerResources(memory_limit_in_bytes=64 << 20))
    change = api.LinuxContainerResources(memory_limit_in_bytes=32 << 20, cpu_shares=512)
    client.runtime.UpdateContainerResources(api.UpdateContainerResourcesRequest(container_id=container, linux=change))
    limit = client.exec(container, "cat", _MEMORY_LIMIT[detect_version()]).stdout
    assert int(limit) == 32 << 20
    resources = client.status(container).resources.linux
    assert (resources.memory_limit_in_bytes, resources.cpu_shares) == (32 << 20, 512)


def _last(disk: Path) -> int:
    """Number of the last whole line in the log of the test below."""
    return int(re.findall(rb"line ([0-9]+) of many", (disk / "c.log").read_bytes())[-1])


def test_a_full_disk_costs_whole_lines(client: Client, pod: str) -> None:
    """The program and its monitor live on, and with space again no line is glued to half of another."""
    disk = client.logs / "disk"
    disk.mkdir()
    syscalls.mount("tmpfs", str(disk), "tmpfs", 0, "size=256k")
    try:
        (disk / "filler").write_bytes(b"x" * (128 << 10))
        script = (
            "i=0; while [ ! -e /go ]; do i=$((i+1)); echo line $i of many; echo $i > /written; done; echo more; exec sleep 1000"
        )
        container = client.run(pod, script, log_path="disk/c.log")
        wait_for("a full disk", lambda: os.statvfs(disk).f_bavail == 0, 30)
        wait_for("a line that is lost", lambda: int(client.exec(container, "cat", "/written").stdout or 0) > _last(disk) + 9, 30)
        wait_for("the end of a line", lambda: (disk / "c.log").read_bytes().endswith(b"\n"), 10)
        (disk / "filler").unlink()
        wait_for("a full disk again", lambda: os.statvfs(disk).f_bavail == 0, 30)
        (disk / "c.log").rename(disk / "old.log")
        client.runtime.ReopenContainerLog(api.ReopenContainerLogRequest(container_id=container))
        assert client.exec(container, "touch", "/go").exit_code == 0
        lines = client.contents("disk/old.log")
        numbers = [int(line.split()[1]) for line in lines]
        assert [line for line in lines if not re.fullmatch(r"line [0-9]+ of many", line)] == []
        assert numbers == sorted(set(numbers)) and numbers[-1] > len(numbers)
    finally:
        client.runtime.StopPodSandbox(api.StopPodSandboxRequest(pod_sandbox_id=pod))
        mounts.unmount_below(str(disk))
        disk.rmdir()


@pytest.mark.parametrize("limit", [128, 32])
def test_a_memory_limit_alone_moves_both_ways(client: Client, pod: str, limit: int) -> None:
    """Of a container that may not swap, and neither may it afterwards."""
    resources = api.LinuxContainerResources(memory_limit_in_bytes=64 << 20, memory_swap_limit_in_bytes=64 << 20)
    container = client.run(pod, "sleep 100", resources=resources)
    change = api.LinuxContainerResources(memory_limit_in_bytes=limit << 20)
    client.runtime.UpdateContainerResources(api.UpdateContainerResourcesRequest(container_id=container, linux=change))
    assert int(client.exec(container, "cat", _MEMORY_LIMIT[detect_version()]).stdout) == limit << 20
    told = client.status(container).resources.linux
    assert (told.memory_limit_in_bytes, told.memory_swap_limit_in_bytes) == (limit << 20, limit << 20)


def test_containers_of_a_shared_pid_namespace_see_each_other(client: Client) -> None:
    """And nothing of the host through its PID 1."""
    options = api.NamespaceOption(pid=api.POD)
    pod = client.pod("shared", security_context=api.LinuxSandboxSecurityContext(namespace_options=options))
    security = api.LinuxContainerSecurityContext(namespace_options=options)
    client.run(pod, "sleep 4321", name="a", security=security)
    other = client.run(pod, "sleep 100", name="b", security=security)
    assert b"sleep\x004321" in client.commands(other)
    assert client.exec(other, "ls", "/proc/1/root/").stdout == b""
    client.runtime.RemovePodSandbox(api.RemovePodSandboxRequest(pod_sandbox_id=pod))


def test_a_terminal_is_one(client: Client, pod: str) -> None:
    """stdin, stdout and stderr are the console, and its output is logged."""
    container = client.run(pod, "test -t 0 && test -t 1 && test -c /dev/console && echo tty", tty=True)
    assert client.ended(container).exit_code == 0
    assert client.contents()[0].strip() == "tty"


def test_stop_asks_first_and_then_kills(client: Client, pod: str) -> None:
    """A program that ignores SIGTERM lives through the grace period and no longer."""
    polite = client.run(pod, "trap 'exit 5' TERM; echo ready; while :; do sleep 0.1; done", name="polite")
    wait_for("the trap", lambda: (client.logs / "c.log").exists() and client.contents() == ["ready"])
    client.runtime.StopContainer(api.StopContainerRequest(container_id=polite, timeout=10))
    assert client.status(polite).exit_code == 5
    deaf = client.run(pod, "trap '' TERM; echo deaf; while :; do sleep 0.1; done", name="deaf")
    wait_for("the trap", lambda: client.contents() == ["ready", "deaf"])
    client.runtime.StopContainer(api.StopContainerRequest(container_id=deaf, timeout=1))
    assert client.status(deaf).exit_code == 137


def test_stop_and_remove_twice_is_no_error(client: Client) -> None:
    """Nor of what never was."""
    pod = client.pod("twice")
    container = client.run(pod, "sleep 100")
    for _time in range(2):
        client.runtime.StopContainer(api.StopContainerRequest(container_id=container, timeout=0))
        client.runtime.RemoveContainer(api.RemoveContainerRequest(container_id=container))
        client.runtime.StopPodSandbox(api.StopPodSandboxRequest(pod_sandbox_id=pod))
    for _time in range(2):
        client.runtime.RemovePodSandbox(api.RemovePodSandboxRequest(pod_sandbox_id=pod))
    client.runtime.RemovePodSandbox(api.RemovePodSandboxRequest(pod_sandbox_id="never-was"))


@pytest.mark.parametrize(
    ("config", "code", "field"),
    [
        ({"image": "127.0.0.1:1/not/here:1"}, "NOT_FOUND", "config.image.image"),
        ({"mounts": [api.Mount(container_path="/x", host_path="/no/such/dir")]}, "NOT_FOUND", "host_path"),
        ({"mounts": [api.Mount(container_path="/x/../y", host_path="/tmp")]}, "INVALID_ARGUMENT", "container_path"),
        ({"mounts": [api.Mount(container_path="/proc", host_path="/tmp")]}, "INVALID_ARGUMENT", "proc"),
        ({"log_path": "../../etc/cron.d/x"}, "INVALID_ARGUMENT", "log_path"),
        ({"devices": [api.Device(container_path="/dev/x", host_path="/etc/passwd")]}, "INVALID_ARGUMENT", "devices"),
    ],
)
def test_a_refused_container_leaves_nothing(client: Client, pod: str, config: dict[str, Any], code: str, field: str) -> None:
    """The right code, the field by name, no snapshot, no record."""
    with pytest.raises(grpc.RpcError) as refused:
        client.create(pod, "true", **config)
    assert refused.value.code().name == code
    assert field in refused.value.details()
    assert list((client.node.directory / "root/overlayfs/snapshots").iterdir()) == []
    assert not client.runtime.ListContainers(api.ListContainersRequest()).containers


def test_what_is_not_there_yet_says_its_name(client: Client) -> None:
    """UNIMPLEMENTED, with the RPC."""
    with pytest.raises(grpc.RpcError) as refused:
        client.runtime.CheckpointContainer(api.CheckpointContainerRequest())
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert "CheckpointContainer" in refused.value.details()


def test_a_second_daemon_on_the_same_root_gives_way(client: Client) -> None:
    """It says who has it, ends with an error, and the first one goes on serving."""
    directory = client.node.directory
    command = [sys.executable, "-m", "cri", "serve", "--listen", f"unix://{directory}/cri.sock", "--root", f"{directory}/root"]
    second = subprocess.run([*command, "--state", f"{directory}/state"], capture_output=True, text=True, timeout=30, cwd=_ROOT)
    assert second.returncode != 0
    assert "in use by process" in second.stderr
    assert client.runtime.Version(api.VersionRequest()).runtime_name == "trivet"


@pytest.mark.parametrize("listen", ["tcp://127.0.0.1:1", "relative", "unix:///" + "x" * 120])
def test_an_endpoint_that_cannot_be_is_refused(listen: str, tmp_path: Path) -> None:
    """By the name of the option."""
    command = [sys.executable, "-m", "cri", "serve", "--listen", listen, "--root", f"{tmp_path}/r", "--state", f"{tmp_path}/s"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=_ROOT)
    assert ended.returncode != 0
    assert "--listen" in ended.stderr
