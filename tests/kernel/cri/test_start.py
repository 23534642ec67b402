"""What keeps trivet-cri from starting is said in one line, and a daemon that runs does not notice."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from cri.api.v1 import api_pb2 as api
from cri.api.v1 import api_pb2_grpc
from tests.support.hostile_registry import HostileRegistry, hang
from trivet.demo import image as demo_image
from trivet.demo.node import DemoNode

_ROOT = Path(__file__).parents[3]
_DRIVER_KEYS = ("cgroup-manager", "network", "packet-filter", "snapshotter", "image-verifier")


@pytest.fixture(scope="module")
def running() -> Iterator[DemoNode]:
    node = DemoNode()
    try:
        node.start()
        yield node
    finally:
        node.close()


def _refused(directory: Path, prefix: tuple[str, ...] = (), **options: str) -> str:
    """What a daemon that does not start says: one line, and nothing of it stays."""
    given = {"listen": f"unix://{directory}/cri.sock", "root": f"{directory}/root", "state": f"{directory}/state"}
    given |= {"cni-conf-dir": f"{directory}/net.d", "registry-dir": f"{directory}/registries.d"}
    given |= {key.replace("_", "-"): value for key, value in options.items()}
    command = [*prefix, sys.executable, "-m", "cri", "serve"]
    ended = subprocess.run(
        [*command, *(f"--{key}={value}" for key, value in given.items())],
        capture_output=True, text=True, timeout=30, cwd=_ROOT, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stdout == ""
    lines = ended.stderr.splitlines()
    assert len(lines) == 1, ended.stderr
    assert lines[0].startswith("trivet-cri: ")
    assert str(directory) not in subprocess.run(["ps", "-eo", "args="], capture_output=True, text=True, check=True).stdout
    return lines[0]


def _answers(node: DemoNode) -> bool:
    return bool(node.runtime().Version(api.VersionRequest()).runtime_name == "trivet")


@pytest.mark.parametrize(
    ("listen", "complaint"),
    [
        ("tcp://127.0.0.1:1", "--listen: 'tcp://127.0.0.1:1' is not unix:///PATH"),
        ("unix://relative", "--listen: 'unix://relative' is not unix:///PATH"),
        ("relative", "--listen"),
        ("", "--listen"),
        ("unix:///" + "x" * 120, "longer than the 107 bytes"),
        ("unix:///proc/trivet.sock", "listening on /proc/trivet.sock: [Errno 2] No such file or directory"),
        ("unix:///proc/no-such/cri.sock", "No such file or directory: '/proc/no-such'"),
        ("unix:///etc/passwd/cri.sock", "File exists: '/etc/passwd'"),
        ("unix:///etc", "it exists and is no socket"),
        ("unix:///etc/passwd", "it exists and is no socket"),
        ("unix:///dev/null", "it exists and is no socket"),
    ],
)
def test_a_socket_that_cannot_be(listen: str, complaint: str, tmp_path: Path) -> None:
    """Malformed, too long, in a directory that cannot be made, on something else."""
    assert complaint in _refused(tmp_path, listen=listen)


def test_a_read_only_place_is_named(tmp_path: Path) -> None:
    """By the option: for the socket, the root and the state."""
    read_only = tmp_path / "ro"
    read_only.mkdir()
    mount = f"mount -t tmpfs -o ro none {read_only} && exec " + '"$@"'
    inside = ("unshare", "--mount", "sh", "-c", mount, "sh")
    assert "trivet-cri: --root: " in _refused(tmp_path, inside, root=str(read_only))
    assert "Read-only file system" in _refused(tmp_path, inside, root=str(read_only / "sub"))
    assert "trivet-cri: --state: " in _refused(tmp_path, inside, state=str(read_only / "sub"))
    assert f"listening on {read_only}/cri.sock: [Errno 30]" in _refused(tmp_path, inside, listen=f"unix://{read_only}/cri.sock")


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    """And one whose database is damaged."""
    (tmp_path / "file").touch()
    assert "--root: [Errno 17] File exists" in _refused(tmp_path, root=f"{tmp_path}/file")
    (tmp_path / "root").mkdir(exist_ok=True)
    (tmp_path / "root" / "state.db").write_bytes(b"no database" * 1000)
    assert f"{tmp_path}/root/state.db: file is not a database" in _refused(tmp_path)


@pytest.mark.parametrize("key", _DRIVER_KEYS)
def test_an_unknown_driver_is_named_with_those_that_are_there(key: str, tmp_path: Path) -> None:
    """By option, and a runtime by configuration."""
    assert "driver 'no-such'" in (said := _refused(tmp_path, **{key: "no-such"}))
    assert "installed are " in said


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("colour: red", "unknown key 'colour'"),
        ("runtime-handlers: {mine: {runtime: no-such}}", "'mine': no runtime driver 'no-such'"),
        ("runtime-handlers: {mine: {settings: {a: 1}}}", "'mine': settings: the runtime native does not know 'a'"),
    ],
)
def test_a_mistake_in_the_configuration_file(text: str, complaint: str, tmp_path: Path) -> None:
    """Named, with what is wrong."""
    (tmp_path / "config.yaml").write_text(text)
    assert complaint in _refused(tmp_path, config=f"{tmp_path}/config.yaml")


def test_a_configuration_file_is_obeyed(tmp_path: Path) -> None:
    """Socket, directories and a handler of one's own; an option wins over the file."""
    with _daemon(tmp_path, "runtime-handlers: {mine: {}}", f"--listen=unix://{tmp_path}/option.sock") as channel:
        status = _runtime(channel).Status(api.StatusRequest())
        assert (tmp_path / "option.sock").is_socket()
        assert not (tmp_path / "file.sock").exists()
    assert {handler.name for handler in status.runtime_handlers} == {"", "trivet", "mine"}


def test_limits_of_pulls_are_obeyed(tmp_path: Path) -> None:
    """A registry's silence, and what a layer may have unpacked."""
    registry = HostileRegistry()
    blob, tar, kind = demo_image.build_layer()
    reference = registry.put_image("t/x", "1", [(blob, tar, kind)], {})
    registry.misbehave(f"sha256:{hashlib.sha256(blob).hexdigest()}", hang(10), 3)
    pull = api.PullImageRequest(image=api.ImageSpec(image=reference))
    try:
        with _daemon(tmp_path, "pull-silence: 0.2\nlargest-layer: 4096") as channel:
            images = api_pb2_grpc.ImageServiceStub(channel)  # type: ignore[no-untyped-call]
            with pytest.raises(grpc.RpcError, match="has sent nothing for 0.2 s") as refused:
                images.PullImage(pull)
            assert refused.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            with pytest.raises(grpc.RpcError, match="larger than the limit of 4096 bytes") as refused:
                images.PullImage(pull)
            assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    finally:
        registry.close()


def test_a_pod_whose_handler_is_configured_no_more_is_left_alone(tmp_path: Path) -> None:
    """It is not ready, and its monitor lives; with the handler there again it can be removed."""
    with _daemon(tmp_path, "runtime-handlers: {mine: {runtime: native}}") as channel:
        config = api.PodSandboxConfig(
            metadata=api.PodSandboxMetadata(name="p", uid="u", namespace="n"),
            linux=api.LinuxPodSandboxConfig(cgroup_parent=f"/trivet-start-{os.getpid()}"),
        )
        pod = _runtime(channel).RunPodSandbox(api.RunPodSandboxRequest(config=config, runtime_handler="mine")).pod_sandbox_id
    directory = tmp_path / "state" / "pods" / pod
    with _daemon(tmp_path, "") as channel:
        (found,) = _runtime(channel).ListPodSandbox(api.ListPodSandboxRequest()).items
        assert (found.id, found.state) == (pod, api.SANDBOX_NOTREADY)
        with pytest.raises(grpc.RpcError) as refused:
            _runtime(channel).StopPodSandbox(api.StopPodSandboxRequest(pod_sandbox_id=pod))
        assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert "runtime handler 'mine' is not configured" in refused.value.details()
        assert _listens(directory)
    with _daemon(tmp_path, "runtime-handlers: {mine: {runtime: native}}") as channel:
        _runtime(channel).StopPodSandbox(api.StopPodSandboxRequest(pod_sandbox_id=pod))
        _runtime(channel).RemovePodSandbox(api.RemovePodSandboxRequest(pod_sandbox_id=pod))
    assert not directory.exists()
    assert list((tmp_path / "state" / "netns").iterdir()) == []


def _listens(directory: Path) -> bool:
    """Whether the pod's monitor does; by a descriptor, since the path may be too long for a socket."""
    descriptor = os.open(directory, os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
            return probe.connect_ex(f"/proc/self/fd/{descriptor}/monitor.sock") == 0
    finally:
        os.close(descriptor)


def _runtime(channel: grpc.Channel) -> Any:
    return api_pb2_grpc.RuntimeServiceStub(channel)  # type: ignore[no-untyped-call]


@contextmanager
def _daemon(directory: Path, configuration: str, *options: str) -> Iterator[grpc.Channel]:
    """To a daemon that runs in the block."""
    keys = {
        "listen": f"unix://{directory}/file.sock",
        "root": directory / "root",
        "state": directory / "state",
        "network": "none",
    }
    text = "".join(f"{key}: {value}\n" for key, value in keys.items())
    (directory / "config.yaml").write_text(text + configuration)
    command = [sys.executable, "-m", "cri", "serve", "--config", f"{directory}/config.yaml", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=_ROOT) as daemon:
        try:
            assert daemon.stdout is not None
            path = daemon.stdout.readline().removeprefix("trivet-cri is ready on ").strip()
            with grpc.insecure_channel(f"unix://{path}") as channel:
                yield channel
        finally:
            daemon.terminate()
    assert daemon.returncode == 0
    assert not os.path.exists(path)


@pytest.mark.parametrize("shared", ["listen", "root", "state"])
def test_what_a_daemon_has_it_keeps(shared: str, running: DemoNode, tmp_path: Path) -> None:
    """A second one on its socket, its root or its state directory gives way, and the first one goes on."""
    paths = {"listen": f"unix://{running.directory}/cri.sock", "root": f"{running.directory}/root"}
    paths["state"] = f"{running.directory}/state"
    before = os.stat(f"{running.directory}/cri.sock").st_ino
    said = _refused(tmp_path, **{shared: paths[shared]})
    assert ("another server is listening there" if shared == "listen" else "is in use by process") in said
    assert os.stat(f"{running.directory}/cri.sock").st_ino == before
    assert _answers(running)


def test_a_socket_of_the_dead_is_replaced() -> None:
    """After kill -9 the next daemon takes its place, for root alone."""
    node = DemoNode()
    try:
        node.start()
        node.kill()
        assert (node.directory / "cri.sock").is_socket()
        node.start()
        assert _answers(node)
        assert (node.directory / "cri.sock").stat().st_mode & 0o777 == 0o600
    finally:
        node.close()


def test_a_socket_whose_owner_does_not_answer_is_not_taken(tmp_path: Path) -> None:
    """Somebody listens, even when he is too busy to accept."""
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(f"{tmp_path}/cri.sock")
        busy.listen(0)
        waiting.connect(f"{tmp_path}/cri.sock")
        assert "another server is listening there" in _refused(tmp_path)
        assert (tmp_path / "cri.sock").is_socket()


def test_the_first_answer_comes_within_a_second(tmp_path: Path) -> None:
    """From the exec of the program, with a configuration file; once in ten times is enough, since other tests run as well."""
    (tmp_path / "config.yaml").write_text("network: none\n")
    assert any(_seconds_to_answer(tmp_path / str(number), tmp_path / "config.yaml") < 1 for number in range(10))


def _seconds_to_answer(directory: Path, config: Path) -> float:
    started = time.monotonic()
    places = [f"--root={directory}/root", f"--state={directory}/state", f"--listen=unix://{directory}/cri.sock"]
    command = [sys.executable, "-m", "cri", "serve", f"--config={config}", *places]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=_ROOT) as daemon:
        try:
            assert daemon.stdout is not None
            daemon.stdout.readline()
            with grpc.insecure_channel(f"unix://{directory}/cri.sock") as channel:
                api_pb2_grpc.RuntimeServiceStub(channel).Version(api.VersionRequest())  # type: ignore[no-untyped-call]
            return time.monotonic() - started
        finally:
            daemon.terminate()
