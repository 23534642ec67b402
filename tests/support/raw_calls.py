"""The RPCs of a gRPC service called with bytes, so that a request can be what no client's library would make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass


@dataclass(frozen=True, slots=True)
class Answer:
    """How a call ended: "OK" with its responses (one, or those of a stream), or the name of a code with its message."""

    code: str
    details: str
    responses: list[Any]


class RawCalls:
    """All methods of one service, by name."""

    def __init__(self, channel: grpc.Channel, service: ServiceDescriptor) -> None:
        self._channel = channel
        self._prefix = f"/{service.full_name}/"
        self._methods = {method.name: method for method in service.methods}

    def names(self) -> list[str]:
        return sorted(self._methods)

    def request(self, name: str) -> Any:
        """An empty request of the method."""
        return GetMessageClass(self._methods[name].input_type)()

    def call(self, name: str, content: bytes, timeout: float) -> Answer:
        method = self._methods[name]
        response = GetMessageClass(method.output_type)
        make: Any = self._channel.unary_stream if method.server_streaming else self._channel.unary_unary
        rpc = make(f"{self._prefix}{name}", request_serializer=None, response_deserializer=response.FromString)
        try:
            answered = rpc(content, timeout=timeout)
            return Answer("OK", "", list(answered) if method.server_streaming else [answered])
        except grpc.RpcError as refused:
            return Answer(refused.code().name, refused.details() or "", [])  # type: ignore[attr-defined]
