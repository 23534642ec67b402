"""The RPC handler: every error of a call, and of a stream while it is read, has its status, its time and its line."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.wrappers_pb2 import StringValue

from runtime_core.errors import NotFound
from runtime_core.log import Log
from runtime_core.serving import unix_server
from runtime_core.serving.rpc_handler import Call, RpcHandler
from runtime_core.serving.timings import BUCKETS, Timings


def _unary(service: Any, request: StringValue, call: Call) -> StringValue:
    _raise(request.value)
    return StringValue(value=f"{service}:{request.value}")


def _stream(service: Any, request: StringValue, call: Call) -> Iterator[StringValue]:
    yield StringValue(value="first")
    _raise(request.value)
    yield StringValue(value="last")


def _raise(what: str) -> None:
    if what == "missing":
        raise NotFound("it is not there")
    if what == "long":
        raise NotFound("\N{COLLISION SYMBOL}é\n" * 10_000)
    if what == "surrogate":
        raise NotFound("what was read: \udcff")
    if what == "full":
        raise OSError(28, "No space left on device")
    if what == "wrong":
        raise ValueError("a mistake of ours")


_METHODS = [
    SimpleNamespace(name=name, input_type=StringValue.DESCRIPTOR, output_type=StringValue.DESCRIPTOR, server_streaming=stream)
    for name, stream in (("One", False), ("Many", True), ("Nobody", False), ("NobodyMany", True))
]
_CASES = [
    ("missing", grpc.StatusCode.NOT_FOUND, "it is not there"),
    ("full", grpc.StatusCode.RESOURCE_EXHAUSTED, "No space"),
    ("wrong", grpc.StatusCode.INTERNAL, "ValueError: a mistake of ours"),
    ("long", grpc.StatusCode.NOT_FOUND, "\N{COLLISION SYMBOL}é"),
    ("surrogate", grpc.StatusCode.NOT_FOUND, "what was read"),
]


class Server:
    def __init__(self, directory: Any) -> None:
        self.timings, self.lines = Timings(), io.StringIO()
        functions = {"One": _unary, "Many": _stream}
        descriptor = SimpleNamespace(full_name="t.T", methods=_METHODS)
        gate = RpcHandler(descriptor, GetMessageClass, functions, "it", Log("debug", stream=self.lines), self.timings)
        self.server = unix_server.make_server([gate])
        unix_server.bind(self.server, directory / "s.sock")
        self.server.start()
        self.channel = grpc.insecure_channel(f"unix://{directory}/s.sock")

    def call(self, method: str, value: str) -> Any:
        return self.send(method, StringValue(value=value).SerializeToString())

    def send(self, method: str, content: bytes) -> Any:
        make: Callable[..., Any] = self.channel.unary_stream if "Many" in method else self.channel.unary_unary
        return make(f"/t.T/{method}", response_deserializer=StringValue.FromString)(content)

    def close(self) -> None:
        """Also the end of every handler: what it counts is counted."""
        self.channel.close()
        self.server.stop(5).wait()


@pytest.fixture
def server(tmp_path: Any) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.close()


def test_a_call_is_answered_counted_and_timed(server: Server) -> None:
    assert server.call("One", "x").value == "it:x"
    assert [one.value for one in server.call("Many", "x")] == ["first", "last"]
    server.close()
    for method in ("One", "Many"):
        timing = server.timings.read()[method, "OK"]
        assert timing.count == sum(timing.buckets) == 1 and 0 < timing.seconds < 60


@pytest.mark.parametrize(("value", "code", "message"), _CASES)
def test_an_error_has_its_status(server: Server, value: str, code: grpc.StatusCode, message: str) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        server.call("One", value)
    assert refused.value.code() == code and message in refused.value.details()
    server.close()
    assert set(server.timings.read()) == {("One", code.name)}


@pytest.mark.parametrize(("value", "code", "message"), _CASES)
def test_an_error_within_a_stream_has_its_status_after_what_came_before(
    server: Server, value: str, code: grpc.StatusCode, message: str
) -> None:
    seen = []
    with pytest.raises(grpc.RpcError) as refused:
        for one in server.call("Many", value):
            seen.append(one.value)
    assert seen == ["first"] and refused.value.code() == code and message in refused.value.details()
    server.close()
    assert set(server.timings.read()) == {("Many", code.name)}


@pytest.mark.parametrize("method", ["One", "Many"])
def test_what_is_no_request_is_the_callers_mistake(server: Server, method: str) -> None:
    """Counted and logged like any other call."""
    with pytest.raises(grpc.RpcError) as refused:
        list(server.send(method, b"\x0a\x03\xed\xa0\x80"))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT and "value" in refused.value.details()
    server.close()
    assert server.timings.read()[method, "INVALID_ARGUMENT"].count == 1


@pytest.mark.parametrize("method", ["Nobody", "NobodyMany"])
def test_what_is_not_served_says_so_by_its_name(server: Server, method: str) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        list(server.call(method, "x"))
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED and method in refused.value.details()
    server.close()
    assert server.timings.read()[method, "UNIMPLEMENTED"].count == 1


def test_the_log_has_method_code_and_time_and_nothing_of_the_request(server: Server) -> None:
    """Requests carry secrets and environments."""
    server.call("One", "hunter2")
    list(server.call("Many", "hunter2"))
    with pytest.raises(grpc.RpcError):
        server.call("One", "wrong")
    server.close()
    lines = [json.loads(line) for line in server.lines.getvalue().splitlines()]
    assert "hunter2" not in server.lines.getvalue()
    assert [(line["method"], line.get("code")) for line in lines if line["event"] == "call"] == [
        ("One", None), ("Many", None), ("One", "INTERNAL"),
    ]  # fmt: skip
    (unforeseen,) = [line for line in lines if line["event"] == "unforeseen"]
    assert "_raise" in unforeseen["trace"]


def test_times_fall_into_the_bucket_that_ends_with_them() -> None:
    timings = Timings()
    for seconds in (0.0005, BUCKETS[0], BUCKETS[0] + 1e-6, BUCKETS[-1], BUCKETS[-1] + 1):
        timings.add("M", "OK", seconds)
    buckets = timings.read()["M", "OK"].buckets
    assert (buckets[0], buckets[1], buckets[-2], buckets[-1]) == (2, 1, 1, 1)
