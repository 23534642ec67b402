"""A client's connection that is written to more quickly than it reads, and sinks that are given up."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from runtime_core.streaming.channels import Aborted, Data, Opened
from runtime_core.streaming.connection import ClientConnection
from runtime_core.streaming.loop import Loop
from runtime_core.streaming.port_forward import PortForward
from runtime_core.streaming.pumps import Sink
from runtime_core.streaming.spdy import SpdyFraming
from tests.support.spdy_client import SpdyClient

_MIB = 1 << 20


@pytest.fixture
def pair() -> Iterator[tuple[Loop, ClientConnection, socket.socket]]:
    ours, theirs = socket.socketpair()
    loop = Loop()
    client = ClientConnection(loop, ours)
    theirs.setblocking(False)
    yield loop, client, theirs
    client.close()
    theirs.close()


def test_who_does_not_read_is_not_read(pair: tuple[Loop, ClientConnection, socket.socket]) -> None:
    """What it asks is answered as long as it takes the answers; all of them come, in their order."""
    loop, client, theirs = pair
    heard = bytearray()
    client.on_data = heard.extend
    for number in range(6):
        client.send([bytes([number]) * _MIB])
    theirs.send(b"asked")
    loop.call_after(0, lambda: None)
    loop.step()
    assert not heard
    received = bytearray()
    while len(received) < 6 * _MIB:
        try:
            received += theirs.recv(_MIB)
        except BlockingIOError:
            loop.step()
    while not heard:
        loop.step()
    assert heard == b"asked" and bytes(received) == b"".join(bytes([number]) * _MIB for number in range(6))


def test_a_sink_that_is_full_keeps_the_client_waiting(pair: tuple[Loop, ClientConnection, socket.socket]) -> None:
    """Until it has room, or nobody reads it any more."""
    loop, client, theirs = pair
    heard = bytearray()
    client.on_data = heard.extend
    reader, writer = os.pipe()
    ended: list[bool] = []
    sink = Sink(loop, writer, client, lambda: ended.append(True))
    sink.write(bytes(_MIB))
    theirs.send(b"more")
    loop.call_after(0, lambda: None)
    loop.step()
    assert not heard
    os.close(reader)
    while not heard:
        loop.step()
    assert heard == b"more" and ended == [True]
    os.close(writer)


def test_a_forward_that_is_given_up_while_it_is_full_frees_the_others(pair: tuple[Loop, ClientConnection, socket.socket]) -> None:
    """RST_STREAM behind the data that its port does not take."""
    loop, client, theirs = pair
    framing, peer = SpdyFraming(), SpdyClient()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        forward = PortForward(loop, client, framing, {"pod_id": "p", "ports": []}, is_numbered=False)
        streams = [peer.open({"streamtype": kind, "port": port, "requestid": "1"}) for kind in ("error", "data")]
        for stream, frame in streams:
            assert framing.receive(frame)
            forward.receive(
                Opened(stream, {"streamtype": "error" if stream == streams[0][0] else "data", "port": port, "requestid": "1"})
            )
        accepted, _address = server.accept()
        loop.step()  # it is connected
        heard = bytearray()
        client.on_data = heard.extend
        data = streams[1][0]
        for _mebibyte in range(16):
            forward.receive(Data(data, bytes(_MIB)))
        forward.receive(Aborted(data))
        theirs.send(b"another")
        while not heard:
            loop.step()
        assert heard == b"another"
        accepted.close()
