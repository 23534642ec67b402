"""The handler around every RPC: log line, metrics, and the status of an error."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import grpc

from runtime_core.errors import TrivetError, Unimplemented, from_exception
from runtime_core.log import Log
from runtime_core.serving import request as requests
from runtime_core.serving.timings import Timings

_STATUS = {code.value[0]: code for code in grpc.StatusCode}
#: bytes; gRPC writes three for one that is not ASCII, and a client takes 8 KiB of metadata
_LONGEST_MESSAGE = 2048
_FOR_EVER = 1e8
#: calls that come every second and change nothing are worth a line only when they fail
_QUIET = ("List", "Version", "Status", "ImageStatus", "ImageFsInfo", "ContainerStats", "PodSandboxStats", "RuntimeConfig")


@dataclass(frozen=True, slots=True)
class Call:
    """What a handler gets of the call beside its request."""

    method: str
    _time_remaining: Callable[[], float | None]
    #: calls its argument when the client has its answer, or does not want it any more; at once when that is so already
    on_end: Callable[[Callable[[], None]], object] = lambda _callback: None

    def time_remaining(self) -> float | None:
        """Seconds that the client will still wait, None for ever (which gRPC gives as centuries)."""
        seconds = self._time_remaining()
        return None if seconds is None or seconds > _FOR_EVER else max(0.0, seconds)


class RpcHandler(grpc.GenericRpcHandler):  # type: ignore[misc, type-arg]
    """Serves the methods of one gRPC service by plain functions: (service, request, call) → response."""

    def __init__(
        self,
        descriptor: Any,
        messages: Callable[[Any], Any],
        functions: Mapping[str, Callable[..., Any]],
        service: Any,
        log: Log,
        timings: Timings | None = None,
        free_text: Collection[str] | None = None,
    ) -> None:
        """`descriptor`: the protobuf service; methods without a function answer UNIMPLEMENTED by name.

        `free_text`: names of the fields that may hold control characters; None where no request is looked through.
        """
        self._log, self._free_text = log, free_text
        self._timings = timings or Timings()
        self._handlers = {}
        for method in descriptor.methods:
            request, response = messages(method.input_type), messages(method.output_type)
            serve, make = self._wrap, grpc.unary_unary_rpc_method_handler
            if method.server_streaming:
                serve, make = self._wrap_stream, grpc.unary_stream_rpc_method_handler
            self._handlers[f"/{descriptor.full_name}/{method.name}"] = make(
                serve(method.name, self._reader(request, functions.get(method.name, _missing)), service),
                response_serializer=response.SerializeToString,
            )

    def service(self, details: Any) -> Any:
        return self._handlers.get(details.method)

    def _reader(self, kind: Any, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function` for the bytes of a request: what is wrong with them is refused like anything else."""

        def read(service: Any, content: bytes, call: Call) -> Any:
            request = requests.decode(kind, content)
            if self._free_text is not None:
                requests.check(request, self._free_text)
            return function(service, request, call)

        return read

    def _wrap(self, name: str, function: Callable[..., Any], service: Any) -> Callable[..., Any]:
        def serve(request: Any, context: Any) -> Any:
            started = time.monotonic()
            try:
                response = function(service, request, Call(name, context.time_remaining))
            except Exception as error:  # noqa: BLE001  the one place where an unforeseen error becomes an answer
                self._refuse(context, name, started, error)
            self._pass(name, started)
            return response

        return serve

    def _wrap_stream(self, name: str, function: Callable[..., Any], service: Any) -> Callable[..., Any]:
        """Most of what goes wrong with a stream does so while it is read, not in the call that makes it."""

        def serve(request: Any, context: Any) -> Iterator[Any]:
            started = time.monotonic()
            try:
                yield from function(service, request, Call(name, context.time_remaining, _watch_end(context)))
            except GeneratorExit:
                self._timings.add(name, grpc.StatusCode.CANCELLED.name, time.monotonic() - started)
                raise
            except Exception as error:  # noqa: BLE001  and here the same for a stream
                self._refuse(context, name, started, error)
            self._pass(name, started)

        return serve

    def _refuse(self, context: Any, name: str, started: float, error: Exception) -> None:
        """Raises what ends the call for gRPC."""
        if not isinstance(error, (TrivetError, OSError)):
            self._log.error("unforeseen", method=name, trace=_trace(error))
        named = from_exception(error, name)
        code, message = _STATUS[named.grpc_code], str(named)
        message = message.encode(errors="backslashreplace")[:_LONGEST_MESSAGE].decode(errors="ignore")
        self._timings.add(name, code.name, time.monotonic() - started)
        log = self._log.error if code is grpc.StatusCode.INTERNAL else self._log.info
        log("call", method=name, ms=_milliseconds(started), code=code.name, error=message)
        context.abort(code, message)

    def _pass(self, name: str, started: float) -> None:
        """Of a request nothing is logged: CSI has fields, marked csi_secret, that must not be, and the CRI environments."""
        self._timings.add(name, grpc.StatusCode.OK.name, time.monotonic() - started)
        level = "debug" if name.startswith(_QUIET) or name.endswith("Status") else "info"
        if self._log.is_on(level):
            (self._log.debug if level == "debug" else self._log.info)("call", method=name, ms=_milliseconds(started))


def _watch_end(context: Any) -> Callable[[Callable[[], None]], object]:
    def watch(callback: Callable[[], None]) -> None:
        if not context.add_callback(callback):
            callback()

    return watch


def _missing(service: Any, request: Any, call: Call) -> Any:
    raise Unimplemented(f"{call.method} is not there yet")


def _trace(error: Exception) -> str:
    import traceback  # here: nothing unforeseen happens in most lives

    return "".join(traceback.format_exception(error))


def _milliseconds(started: float) -> float:
    return round((time.monotonic() - started) * 1000, 2)
