"""Probe: whether the file system below answers."""

from __future__ import annotations

from google.protobuf.wrappers_pb2 import BoolValue

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.service import Service
from runtime_core.errors import FailedPrecondition, TrivetError
from runtime_core.serving.rpc_handler import Call


def probe(service: Service, request: csi.ProbeRequest, call: Call) -> csi.ProbeResponse:
    """Recovery is over before the socket is there, hence ready or FailedPrecondition."""
    check(service)
    return csi.ProbeResponse(ready=BoolValue(value=True))


def check(service: Service) -> None:
    """FailedPrecondition when the back end's file system does not answer."""
    try:
        service.backend.capacity()
    except (TrivetError, OSError) as error:
        raise FailedPrecondition(f"the back end {service.settings.backend} does not answer: {error}") from error
