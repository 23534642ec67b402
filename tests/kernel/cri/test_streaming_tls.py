"""Streams behind TLS, and what a daemon says of a certificate or address that it cannot use."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cri.api.v1 import api_pb2 as api
from runtime_core.errors import InvalidArgument, TrivetError
from runtime_core.streaming.client import Streams, StreamSettings
from tests.support.cri_client import Client
from tests.support.spdy_client import SpdyClient
from trivet.demo import image as demo_image
from trivet.demo.node import DemoNode
from trivet.demo.registry import Registry


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    directory = tmp_path_factory.mktemp("tls")
    certificate, key = directory / "cert.pem", directory / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=streams",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


@pytest.fixture
def client(certificate: tuple[Path, Path]) -> Iterator[Client]:
    registry, node = Registry(), DemoNode()
    try:
        reference = registry.put_image("t/tools", "1", [demo_image.build_layer()], {"Env": ["PATH=/bin"]})
        streaming = {"certificate": str(certificate[0]), "key": str(certificate[1]), "request-seconds": 2.0}
        (node.directory / "config.yaml").write_text(json.dumps({"streaming": streaming}))
        node.start("--config", str(node.directory / "config.yaml"))
        client = Client(node, reference)
        client.images.PullImage(api.PullImageRequest(image=api.ImageSpec(image=reference)))
        yield client
    finally:
        node.close()
        registry.close()


def test_a_command_runs_behind_tls(client: Client, certificate: tuple[Path, Path]) -> None:
    """Much data in both directions; who does not speak TLS, or nothing at all, is cut off."""
    container = client.run(client.pod("tls"), "sleep 1000")
    url = client.runtime.Exec(api.ExecRequest(container_id=container, cmd=["cat"], stdin=True, stdout=True)).url
    assert url.startswith("https://127.0.0.1:")
    port = int(url.split("/")[2].split(":")[1])
    content = bytes(range(256)) * 8000
    with _connect(port, certificate[0]) as sock:
        sock.sendall(f"POST /exec/{url.rpartition('/')[2]} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
                     "X-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n".encode())  # fmt: skip
        spdy = SpdyClient()
        streams = {}
        for name in ("error", "stdin", "stdout"):
            streams[name], frame = spdy.open({"streamtype": name})
            sock.sendall(frame)
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(65536)
        spdy.receive(head.partition(b"\r\n\r\n")[2])
        for begin in range(0, len(content), 64_000):
            sock.sendall(spdy.data(streams["stdin"], content[begin : begin + 64_000]))
            while len(spdy.streams[streams["stdout"]].data) < begin:
                spdy.receive(sock.recv(65536))
        sock.sendall(spdy.data(streams["stdin"], b"", fin=True))
        while not spdy.streams[streams["error"]].is_finished:
            spdy.receive(sock.recv(65536))
    assert bytes(spdy.streams[streams["stdout"]].data) == content
    assert b"Success" in spdy.streams[streams["error"]].data
    for hello in (b"GET / HTTP/1.1\r\n\r\n", b""):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
            sock.sendall(hello)
            assert b"HTTP" not in _answer(sock)


def _answer(sock: socket.socket) -> bytes:
    """Up to the end, which may be a reset: nobody reads what was sent."""
    try:
        return sock.recv(1000)
    except ConnectionResetError:
        return b""


def _connect(port: int, certificate: Path) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(certificate))
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=30), server_hostname="127.0.0.1")


def test_a_certificate_that_cannot_be_used_is_told_at_the_start(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    """By its path; so is a pair that is none."""
    (tmp_path / "empty").write_text("")
    for cert, key in (
        (tmp_path / "missing", certificate[1]),
        (tmp_path / "empty", certificate[1]),
        (certificate[0], certificate[0]),
    ):
        with pytest.raises(InvalidArgument, match="streaming: certificate"):
            Streams(None, StreamSettings(certificate=str(cert), key=str(key)))  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="together"):
        StreamSettings(certificate="/x")


@pytest.mark.parametrize("settings", [{"port": -1}, {"port": 65536}, {"idle_seconds": 0.0}, {"token_seconds": 1e9}])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, float]) -> None:
    """By their key."""
    with pytest.raises(InvalidArgument, match=next(iter(settings)).replace("_", "-")):
        StreamSettings(**settings)  # type: ignore[arg-type]


def test_an_address_that_is_not_the_nodes_is_told(tmp_path: Path) -> None:
    """And a port that is taken."""
    with pytest.raises(TrivetError, match="streaming: listening on 192.0.2.1"):
        Streams(None, StreamSettings(address="192.0.2.1"))  # type: ignore[arg-type]
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(TrivetError, match="listening on 127.0.0.1 port"):
        Streams(None, StreamSettings(port=taken.getsockname()[1]))  # type: ignore[arg-type]
