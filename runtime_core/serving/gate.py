"""What every call passes: an id, a log line, a count, and errors turned into status."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc

from runtime_core.errors import TrivetError, from_oserror
from runtime_core.log import Log

_STATUS = {code.value[0]: code for code in grpc.StatusCode}
_LONGEST_MESSAGE = 4096
_FOR_EVER = 1e8
#: calls that come every second and change nothing are worth a line only when they fail
_QUIET = ("List", "Version", "Status", "ImageStatus", "ImageFsInfo", "ContainerStats", "PodSandboxStats", "RuntimeConfig")


@dataclass(frozen=True, slots=True)
class Call:
    """What a handler may know of the call beside its request."""

    method: str
    _time_remaining: Callable[[], float | None]

    def time_remaining(self) -> float | None:
        """Seconds that the client will still wait, None for ever (which gRPC gives as centuries)."""
        seconds = self._time_remaining()
        return None if seconds is None or seconds > _FOR_EVER else max(0.0, seconds)


class Gate(grpc.GenericRpcHandler):  # type: ignore[misc, type-arg]
    """Serves the methods of one gRPC service by plain functions: (service, request, call) → response."""

    def __init__(
        self,
        descriptor: Any,
        messages: Callable[[Any], Any],
        functions: Mapping[str, Callable[..., Any]],
        service: Any,
        log: Log,
    ) -> None:
        """`descriptor`: the protobuf service; methods without a function answer UNIMPLEMENTED by name."""
        self._log = log
        self._handlers = {}
        self.counts: dict[tuple[str, str], int] = {}
        self._counting = threading.Lock()
        for method in descriptor.methods:
            request, response = messages(method.input_type), messages(method.output_type)
            serve = self._wrap(method.name, functions.get(method.name), service)
            make = grpc.unary_stream_rpc_method_handler if method.server_streaming else grpc.unary_unary_rpc_method_handler
            self._handlers[f"/{descriptor.full_name}/{method.name}"] = make(
                serve, request_deserializer=request.FromString, response_serializer=response.SerializeToString
            )

    def service(self, details: Any) -> Any:
        return self._handlers.get(details.method)

    def _wrap(self, name: str, function: Callable[..., Any] | None, service: Any) -> Callable[..., Any]:
        def serve(request: Any, context: Any) -> Any:
            started = time.monotonic()
            if function is None:
                context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{name} is not there yet")
            try:
                response = function(service, request, Call(name, context.time_remaining))  # type: ignore[misc]
            except TrivetError as error:
                self._refuse(context, name, started, _STATUS[error.grpc_code], str(error))
            except OSError as error:
                named = from_oserror(error, name)
                self._refuse(context, name, started, _STATUS[named.grpc_code], str(named))
            except Exception as error:  # noqa: BLE001  the one place where an unforeseen error becomes an answer
                self._log.error("unforeseen", method=name, trace=traceback.format_exc())
                self._refuse(context, name, started, grpc.StatusCode.INTERNAL, f"{name}: {type(error).__name__}: {error}")
            self._count(name, "OK")
            self._note(name, started)
            return response

        return serve

    def _refuse(self, context: Any, name: str, started: float, code: grpc.StatusCode, message: str) -> None:
        self._count(name, code.name)
        level = "error" if code is grpc.StatusCode.INTERNAL else "info"
        fields = {"method": name, "ms": _milliseconds(started), "code": code.name, "error": message[:_LONGEST_MESSAGE]}
        (self._log.error if level == "error" else self._log.info)("call", **fields)
        context.abort(code, message[:_LONGEST_MESSAGE])

    def _note(self, name: str, started: float) -> None:
        level = "debug" if name.startswith(_QUIET) or name.endswith("Status") else "info"
        if self._log.is_on(level):
            (self._log.debug if level == "debug" else self._log.info)("call", method=name, ms=_milliseconds(started))

    def _count(self, name: str, code: str) -> None:
        with self._counting:
            self.counts[name, code] = self.counts.get((name, code), 0) + 1


def _milliseconds(started: float) -> float:
    return round((time.monotonic() - started) * 1000, 2)
