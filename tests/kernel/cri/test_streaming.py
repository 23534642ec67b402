"""Exec, attach and port-forward as their clients see them: over SPDY and WebSocket, through a real daemon."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from cri.api.v1 import api_pb2 as api
from e2e.wait import wait_for
from runtime_core.testing.namespaces import in_pinned_namespace
from tests.support.cri_client import Client
from tests.support.spdy_client import SYN_STREAM, control
from tests.support.stream_client import SpdyStreams, WebSocketStreams, connect

Streams = SpdyStreams | WebSocketStreams
SPDY = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"


def spdy(url: str, names: tuple[str, ...]) -> Streams:
    return SpdyStreams(url, ("error", *names))


def websocket(url: str, names: tuple[str, ...]) -> Streams:
    return WebSocketStreams(url, names)


both = pytest.mark.parametrize("dial", [spdy, websocket])


def exec_url(client: Client, container: str, *command: str, **streams: bool) -> str:
    return str(client.runtime.Exec(api.ExecRequest(container_id=container, cmd=command, **streams)).url)


def execute(client: Client, container: str, dial: Callable[..., Streams], script: str, *names: str, tty: bool = False) -> Streams:
    wanted = {name: name in names for name in ("stdin", "stdout", "stderr")}
    url = exec_url(client, container, "sh", "-c", script, tty=tty, **wanted)
    return dial(url, (*names, "resize") if tty else names)


def attach(client: Client, container: str, dial: Callable[..., Streams], *names: str, tty: bool = False) -> Streams:
    wanted = {name: name in names for name in ("stdin", "stdout", "stderr")}
    url = client.runtime.Attach(api.AttachRequest(container_id=container, tty=tty, **wanted)).url
    return dial(url, (*names, "resize") if tty else names)


def exit_code(status: Any) -> int:
    """Of a metav1.Status."""
    if status["status"] == "Success":
        return 0
    assert status["reason"] == "NonZeroExitCode", status
    return int(status["details"]["causes"][0]["message"])


def processes(client: Client, name: str) -> list[int]:
    """Of this daemon's streaming server and sessions, by their name: its log is their standard error."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if (entry / "comm").read_text() == f"{name}\n" and os.readlink(entry / "fd/2") == str(client.node.directory / "log"):
                found.append(int(entry.name))
        except OSError:
            continue  # it has ended
    return found


@pytest.fixture
def sleeper(client: Client, pod: str) -> str:
    return client.run(pod, "sleep 1000")


# -- exec


@both
@pytest.mark.parametrize("code", [0, 7, 137])
def test_exec_gives_both_streams_and_the_code(client: Client, sleeper: str, dial: Any, code: int) -> None:
    """The code is the last word, on the error channel."""
    script = f"echo out; echo err >&2; {'kill -9 $$' if code == 137 else f'exit {code}'}"
    streams = execute(client, sleeper, dial, script, "stdout", "stderr")
    assert exit_code(streams.finish()) == code
    assert (streams.data("stdout"), streams.data("stderr")) == (b"out\n", b"err\n")


@pytest.mark.parametrize(
    "protocol", ["v4.channel.k8s.io", "v5.channel.k8s.io", "v4.base64.channel.k8s.io", "base64.channel.k8s.io", ""]
)
def test_every_websocket_protocol_carries_a_command(client: Client, sleeper: str, protocol: str) -> None:
    """Before v4 the end is a sentence, and nothing after success."""
    url = exec_url(client, sleeper, "sh", "-c", "cat; exit 3", stdin=True, stdout=True)
    streams = WebSocketStreams(url, (), protocol)
    streams.send("stdin", b"hello")
    streams.receive_until("stdout", b"hello")
    if protocol.startswith("v5"):
        streams.end("stdin")
        assert exit_code(streams.finish()) == 3
    streams.close()


@pytest.mark.parametrize("protocol", ["v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"])
def test_older_spdy_protocols_end_with_a_sentence(client: Client, sleeper: str, protocol: str) -> None:
    """Nothing after success."""
    for code, sentence in ((0, b""), (3, b"command terminated with exit code 3")):
        streams = SpdyStreams(exec_url(client, sleeper, "sh", "-c", f"exit {code}", stdout=True), ("error", "stdout"), protocol)
        while streams.receive():
            pass
        streams.close()
        assert streams.data("error") == sentence and streams.stream("stdout").is_finished


@both
def test_the_end_of_stdin_reaches_the_command(client: Client, sleeper: str, dial: Any) -> None:
    """And its answer comes back after it."""
    streams = execute(client, sleeper, dial, "busybox sha256sum", "stdin", "stdout")
    content = os.urandom(5_000_000)
    for begin in range(0, len(content), 100_000):
        streams.send("stdin", content[begin : begin + 100_000])
    streams.end("stdin")
    assert exit_code(streams.finish()) == 0
    assert streams.data("stdout").split()[0].decode() == hashlib.sha256(content).hexdigest()


@both
def test_much_output_comes_whole_to_a_slow_reader(client: Client, sleeper: str, dial: Any) -> None:
    """It is the command that waits, not the memory that grows."""
    streams = execute(
        client,
        sleeper,
        dial,
        "busybox seq 1 3000000 | busybox tee /tmp/numbers; busybox sha256sum /tmp/numbers >&2",
        "stdout",
        "stderr",
    )
    if isinstance(streams, SpdyStreams):
        (session,) = processes(client, "trivet-stream")
        wait_for("the session waits", lambda: "S" in Path(f"/proc/{session}/stat").read_text().split()[2], 10)
        assert int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{session}/status").read_text())[0]) < 60_000
    assert exit_code(streams.finish()) == 0
    if isinstance(streams, SpdyStreams):
        assert streams.data("stderr").split()[0].decode() == hashlib.sha256(streams.data("stdout")).hexdigest()


@both
def test_a_terminal_has_its_size_and_ends_by_its_end_of_file(client: Client, sleeper: str, dial: Any) -> None:
    """Sizes may change; several in one message are taken one after the other."""
    streams = execute(
        client, sleeper, dial, "busybox tty; read line; busybox stty size; cat; exit 4", "stdin", "stdout", tty=True
    )
    streams.receive_until("stdout", b"/dev/pts/")
    streams.send("resize", b'{"Width":100,"Height":30}\n{"Width":101,')
    streams.send("resize", b'"Height":31}\n')
    streams.send("resize", b'{"Width":-1,"Height":"x"}{"Width":70000,"Height":1}[1]')
    streams.send("stdin", b"go\n")
    streams.receive_until("stdout", b"31 101")
    streams.end("stdin")
    assert exit_code(streams.finish()) == 4


@both
def test_a_command_that_cannot_be_run_is_a_status(client: Client, sleeper: str, dial: Any) -> None:
    """With the reason."""
    status = dial(exec_url(client, sleeper, "/no/such", stdout=True), ("stdout",)).finish()
    assert status["status"] == "Failure" and "/no/such" in status["message"] and status["code"] == 500


@both
def test_a_command_whose_client_has_gone_is_killed(client: Client, sleeper: str, dial: Any) -> None:
    """With all that it has started; nothing of the session is left."""
    streams = execute(client, sleeper, dial, "sleep 771 & echo up; sleep 772", "stdout")
    streams.receive_until("stdout", b"up")
    streams.close()
    wait_for("they are gone", lambda: b"sleep\x0077" not in client.commands(sleeper), 10)
    wait_for("the session is gone", lambda: not processes(client, "trivet-stream"), 10)


@both
def test_a_background_child_does_not_hold_the_stream(client: Client, sleeper: str, dial: Any) -> None:
    """Its pipe stays open, and nobody waits for it."""
    streams = execute(client, sleeper, dial, "sleep 30 & echo done", "stdout")
    started = time.monotonic()
    assert exit_code(streams.finish()) == 0 and streams.data("stdout") == b"done\n"
    assert time.monotonic() - started < 20


def test_a_session_has_no_rights(client: Client, sleeper: str) -> None:
    """Whoever reads bytes from outside is nobody, and can gain nothing."""
    streams = execute(client, sleeper, spdy, "echo up; sleep 1000", "stdout")
    streams.receive_until("stdout", b"up")
    (session,) = processes(client, "trivet-stream")
    status = Path(f"/proc/{session}/status").read_text()
    assert "Uid:\t65534\t65534\t65534\t65534" in status and "NoNewPrivs:\t1" in status
    assert re.findall(r"Cap(?:Eff|Prm):\t(\w+)", status) == ["0" * 16, "0" * 16]
    streams.close()


# -- attach


@both
def test_attach_shows_the_output_to_every_client(client: Client, pod: str, dial: Any) -> None:
    """From now on, without the log missing anything; the end of the container is success."""
    container = client.run(pod, "read line; echo got $line; echo problem >&2; exit 5", stdin=True)
    first = attach(client, container, dial, "stdout", "stderr")
    second = attach(client, container, dial, "stdin", "stdout", "stderr")
    third = attach(client, container, dial, "stderr")
    wait_for("all are attached", lambda: len(processes(client, "trivet-stream")) == 3, 10)
    _settle(first, second, third)
    second.send("stdin", b"hello\n")
    for streams in (first, second, third):
        assert exit_code(streams.finish()) == 0
    assert [streams.data("stdout") for streams in (first, second)] == [b"got hello\n", b"got hello\n"]
    assert [streams.data("stderr") for streams in (first, second, third)] == [b"problem\n"] * 3
    assert client.ended(container).exit_code == 5
    assert sorted(client.contents()) == ["got hello", "problem"]


def _settle(*clients: Streams) -> None:
    """Each is attached once the server has answered its last stream."""
    for streams in clients:
        if isinstance(streams, SpdyStreams):
            while not all(streams.spdy.streams[number].is_replied for number in streams.streams.values()):
                assert streams.receive()
        else:
            while not streams.received:  # the empty message
                assert streams.receive()


@both
@pytest.mark.parametrize("once", [True, False])
def test_stdin_ends_with_its_first_client_if_it_is_for_one(client: Client, pod: str, dial: Any, once: bool) -> None:
    """StdinOnce; otherwise the next client goes on."""
    container = client.run(pod, "cat; echo ended", stdin=True, stdin_once=once)
    streams = attach(client, container, dial, "stdin", "stdout")
    streams.send("stdin", b"first\n")
    streams.receive_until("stdout", b"first")
    streams.end("stdin")
    if once:
        streams.receive_until("stdout", b"ended")
        assert client.ended(container).exit_code == 0
        streams.close()
        return
    streams.close()
    again = attach(client, container, dial, "stdin", "stdout")
    again.send("stdin", b"second\n")
    again.receive_until("stdout", b"second")
    again.close()
    assert client.status(container).state == api.CONTAINER_RUNNING


@both
def test_a_container_that_ends_without_reading_its_stdin_ends_the_stream(client: Client, pod: str, dial: Any) -> None:
    """At once, however much is still to be written to it."""
    container = client.run(pod, "head -c 1 > /dev/null", stdin=True, stdin_once=True)
    streams = attach(client, container, dial, "stdin", "stdout")
    for _piece in range(4):
        streams.send("stdin", bytes(64 * 1024))
    assert exit_code(streams.finish()) == 0
    wait_for("the session is gone", lambda: not processes(client, "trivet-stream"), 20)


@both
def test_attach_to_a_terminal_types_and_resizes(client: Client, pod: str, dial: Any) -> None:
    """The log has it too."""
    container = client.run(pod, "while read line; do busybox stty size; echo got $line; done", stdin=True, tty=True)
    streams = attach(client, container, dial, "stdin", "stdout", tty=True)
    streams.send("resize", b'{"Width":77,"Height":22}')
    streams.send("stdin", b"hello\n")
    streams.receive_until("stdout", b"22 77\r\ngot hello\r\n")
    streams.close()
    wait_for("the log has it", lambda: "got hello" in client.contents(), 10)


def test_a_slow_client_is_let_go_and_holds_nobody_back(client: Client, pod: str) -> None:
    """It is told why; container, log and the other client lose nothing."""
    container = client.run(pod, "read line; busybox seq 1 6000000; echo the end", stdin=True)
    slow = attach(client, container, spdy, "stdout")
    quick = attach(client, container, spdy, "stdin", "stdout")
    _settle(slow, quick)
    quick.send("stdin", b"go\n")
    assert exit_code(quick.finish()) == 0
    assert quick.data("stdout").endswith(b"6000000\nthe end\n") and quick.data("stdout").count(b"\n") == 6000001
    assert client.contents()[-2:] == ["6000000", "the end"]
    status = slow.finish()
    assert status["status"] == "Failure" and "slow" in status["message"]


# -- port-forward


def forward(client: Client, pod: str, port: int) -> SpdyStreams:
    url = client.runtime.PortForward(api.PortForwardRequest(pod_sandbox_id=pod, port=[port])).url
    streams = SpdyStreams(url, (), "portforward.k8s.io")
    for kind in ("error", "data"):
        streams.open(kind, {"streamtype": kind, "port": str(port), "requestid": "0"})
    return streams


@contextmanager
def listening(client: Client, pod: str, address: str = "127.0.0.1") -> Iterator[socket.socket]:
    """A socket of this test in the pod's network namespace."""
    with in_pinned_namespace(str(client.node.directory / "state/netns" / pod)):
        server = socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET)
    with server:
        server.settimeout(30)
        yield server


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_port_of_the_pod_answers(client: Client, pod: str, address: str) -> None:
    """At either family; a half-close goes through in both directions."""
    with listening(client, pod, address) as server:
        streams = forward(client, pod, server.getsockname()[1])
        accepted, _address = server.accept()
        content = os.urandom(2_000_000)
        streams.send("data", content[:1_000_000])
        threading.Thread(target=lambda: streams.send("data", content[1_000_000:], fin=True)).start()
        with accepted, accepted.makefile("rb") as incoming:
            assert incoming.read() == content
            accepted.sendall(content)
        while not streams.stream("data").is_finished:
            assert streams.receive()
        assert streams.data("data") == content and streams.data("error") == b""
        streams.close()


def test_a_closed_port_is_told_on_the_error_stream(client: Client, pod: str) -> None:
    """The connection goes on for other ports."""
    streams = forward(client, pod, 81)
    while not streams.stream("error").is_finished:
        assert streams.receive()
    assert b"port 81" in streams.data("error") and b"refused" in streams.data("error")
    streams.open("again", {"streamtype": "error", "port": "82", "requestid": "1"})
    streams.open("again data", {"streamtype": "data", "port": "82", "requestid": "1"})
    while not streams.stream("again").is_finished:
        assert streams.receive()
    streams.close()


@pytest.mark.parametrize("headers", [{}, {"streamtype": "data"}, {"streamtype": "data", "port": "0"}, {"streamtype": "x", "port": "80"},
                                     {"streamtype": "data", "port": "65536"}, {"streamtype": "data", "port": "²"}])  # fmt: skip
def test_a_stream_without_a_port_is_reset(client: Client, pod: str, headers: dict[str, str]) -> None:
    """By itself."""
    url = client.runtime.PortForward(api.PortForwardRequest(pod_sandbox_id=pod)).url
    streams = SpdyStreams(url, (), "portforward.k8s.io")
    streams.open("it", {key: value.encode().decode("latin-1") for key, value in headers.items()})
    while not streams.stream("it").is_reset:
        assert streams.receive()
    streams.close()


def test_websocket_channels_forward_the_ports_of_the_request(client: Client, pod: str) -> None:
    """Two channels a port, each told its port first."""
    with listening(client, pod) as server:
        port = server.getsockname()[1]
        url = client.runtime.PortForward(api.PortForwardRequest(pod_sandbox_id=pod, port=[port, 81])).url
        streams = WebSocketStreams(url, (), "v4.channel.k8s.io")
        accepted, _address = server.accept()
        streams.send("stdin", b"hello")  # channel 0: data of the first port
        with accepted:
            assert accepted.recv(10) == b"hello"
            accepted.sendall(b"back")
            while streams.received.get(0) != struct.pack("<H", port) + b"back" or b"refused" not in streams.received.get(3, b""):
                assert streams.receive()
        assert bytes(streams.received[1]) == struct.pack("<H", port) and streams.received[3][:2] == struct.pack("<H", 81)
        streams.close()


def test_a_pod_with_the_nodes_network_forwards_the_nodes_ports(client: Client) -> None:
    """Which are this test's here."""
    options = api.LinuxSandboxSecurityContext(namespace_options=api.NamespaceOption(network=api.NODE))
    pod = client.pod("nodenet", security_context=options)
    with socket.create_server(("127.0.0.1", 0)) as server:
        streams = forward(client, pod, server.getsockname()[1])
        accepted, _address = server.accept()
        streams.send("data", b"ping")
        assert accepted.recv(10) == b"ping"
        accepted.sendall(b"pong")
        streams.receive_until("data", b"pong")
        accepted.close()
        streams.close()
    client.runtime.RemovePodSandbox(api.RemovePodSandboxRequest(pod_sandbox_id=pod))


# -- tokens and requests


def test_a_token_is_good_once_and_for_its_own_kind(client: Client, sleeper: str) -> None:
    """What it is not good for is 404, without saying more."""
    url = exec_url(client, sleeper, "true", stdout=True)
    for wrong in (url.replace("/exec/", "/attach/"), url[:-1], url.rpartition("/")[0], url.rpartition("/")[0] + "/"):
        sock, head, _rest = connect(wrong, SPDY)
        sock.close()
        assert head.startswith("HTTP/1.1 404 ")
    assert exit_code(SpdyStreams(url, ("error", "stdout")).finish()) == 0
    sock, head, _rest = connect(url, SPDY)
    sock.close()
    assert head.startswith("HTTP/1.1 404 ")


@pytest.mark.parametrize(("headers", "code"), [("", 400), ("Connection: Upgrade\r\nUpgrade: h2c\r\n", 400),
                                               (f"{SPDY}X-Stream-Protocol-Version: v9.channel.k8s.io\r\n", 403)])  # fmt: skip
def test_a_request_that_cannot_be_served_is_told_why(client: Client, sleeper: str, headers: str, code: int) -> None:
    """In an ordinary HTTP answer."""
    sock, head, body = connect(exec_url(client, sleeper, "true", stdout=True), headers)
    assert head.startswith(f"HTTP/1.1 {code} ") and "Content-Length" in head
    assert body or sock.recv(1000)
    sock.close()


@pytest.mark.parametrize(
    ("request_", "word"),
    [
        ({"cmd": ["true"]}, "stdin, stdout"),
        ({"cmd": ["true"], "tty": True, "stderr": True}, "tty"),
        ({"stdout": True}, "cmd"),
    ],
)
def test_an_exec_that_makes_no_sense_is_refused(client: Client, sleeper: str, request_: dict[str, Any], word: str) -> None:
    """INVALID_ARGUMENT, by its field."""
    with pytest.raises(grpc.RpcError) as refused:
        client.runtime.Exec(api.ExecRequest(container_id=sleeper, **request_))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT and word in refused.value.details()


def test_what_does_not_run_has_no_streams(client: Client, pod: str) -> None:
    """FAILED_PRECONDITION; NOT_FOUND for what is not there."""
    container = client.create(pod, "true")
    for call, code in (
        (lambda: client.runtime.Exec(api.ExecRequest(container_id=container, cmd=["true"], stdout=True)), "FAILED_PRECONDITION"),
        (lambda: client.runtime.Attach(api.AttachRequest(container_id=container, stdout=True)), "FAILED_PRECONDITION"),
        (lambda: client.runtime.Attach(api.AttachRequest(container_id="nobody", stdout=True)), "NOT_FOUND"),
        (lambda: client.runtime.PortForward(api.PortForwardRequest(pod_sandbox_id="nobody")), "NOT_FOUND"),
        (lambda: client.runtime.PortForward(api.PortForwardRequest(pod_sandbox_id=pod, port=[0])), "INVALID_ARGUMENT"),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            call()
        assert refused.value.code().name == code
    client.runtime.RemoveContainer(api.RemoveContainerRequest(container_id=container))


def test_streams_that_are_asked_for_and_not_begun_are_bounded(client: Client, sleeper: str) -> None:
    """RESOURCE_EXHAUSTED, and those that were asked for can be begun."""
    first = exec_url(client, sleeper, "echo", "hi", stdout=True)
    with pytest.raises(grpc.RpcError) as refused:
        for _number in range(1100):
            exec_url(client, sleeper, "true", stdout=True)
    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    streams = SpdyStreams(first, ("error", "stdout"))
    assert exit_code(streams.finish()) == 0
    os.kill(processes(client, "trivet-streams")[0], signal.SIGKILL)  # and its tokens with it


# -- faults


def _daemon(client: Client) -> int:
    process = client.node._process
    assert process is not None
    return process.pid


def test_hostile_frames_end_their_connection_alone(client: Client, sleeper: str) -> None:
    """The command goes with it, and the next stream works."""
    streams = execute(client, sleeper, spdy, "echo up; sleep 773", "stdout")
    streams.receive_until("stdout", b"up")
    streams.sock.sendall(control(SYN_STREAM, struct.pack(">IIBB", 9, 0, 0, 0) + b"no zlib"))
    while streams.receive():
        pass
    streams.close()
    wait_for("the command is gone", lambda: b"sleep\x00773" not in client.commands(sleeper), 10)
    assert exit_code(execute(client, sleeper, spdy, "true", "stdout").finish()) == 0


def test_a_streaming_server_that_was_killed_is_started_again(client: Client, sleeper: str) -> None:
    """At the same port; sessions that were open go on."""
    streams = execute(client, sleeper, spdy, "echo up; read line; echo $line", "stdin", "stdout")
    streams.receive_until("stdout", b"up")
    before = exec_url(client, sleeper, "true", stdout=True)
    (server,) = processes(client, "trivet-streams")
    os.kill(server, signal.SIGKILL)
    wait_for("it is gone", lambda: server not in processes(client, "trivet-streams"), 10)
    after = exec_url(client, sleeper, "true", stdout=True)
    assert before.split("/")[2] == after.split("/")[2]
    assert exit_code(SpdyStreams(after, ("error", "stdout")).finish()) == 0
    streams.send("stdin", b"still here\n")
    assert exit_code(streams.finish()) == 0 and b"still here" in streams.data("stdout")


def test_streams_that_are_broken_off_leave_nothing(client: Client, sleeper: str, pod: str) -> None:
    """Neither processes nor descriptors, in daemon, streaming server and monitor."""
    assert exit_code(execute(client, sleeper, spdy, "true", "stdout").finish()) == 0
    wait_for("no session", lambda: not processes(client, "trivet-stream"), 10)
    watched = [_daemon(client), *processes(client, "trivet-streams"), *processes(client, "trivet-monitor")]

    def descriptors() -> list[int]:
        return [len(os.listdir(f"/proc/{pid}/fd")) for pid in watched]

    before = descriptors()
    for number in range(60):
        dial = (spdy, websocket)[number % 2]
        if number % 3 == 0:
            streams = execute(client, sleeper, dial, "echo up; sleep 774", "stdin", "stdout")
            streams.receive_until("stdout", b"up")
        elif number % 3 == 1:
            streams = execute(client, sleeper, dial, "cat", "stdin", "stdout")
            streams.end("stdin")
            assert exit_code(streams.finish()) == 0
        else:
            streams = forward(client, pod, 81)
        streams.close()
    wait_for("no session", lambda: not processes(client, "trivet-stream"), 20)
    wait_for("no command", lambda: b"sleep\x00774" not in client.commands(sleeper), 20)
    wait_for("descriptors as before", lambda: descriptors() == before, 10)
