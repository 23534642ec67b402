"""Which function serves which RPC. What is not here answers UNIMPLEMENTED by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.message_factory import GetMessageClass

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.controller.table import CONTROLLER, GROUP_CONTROLLER, IDENTITY, SNAPSHOT_METADATA
from csi_driver.node.table import NODE
from csi_driver.service import Service
from runtime_core.serving.gate import Gate

SERVICES: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    "Identity": IDENTITY,
    "Controller": CONTROLLER,
    "GroupController": GROUP_CONTROLLER,
    "SnapshotMetadata": SNAPSHOT_METADATA,
    "Node": NODE,
}


def gates(service: Service) -> list[Gate]:
    """The five services of CSI v1."""
    services = csi.DESCRIPTOR.services_by_name
    return [Gate(services[name], GetMessageClass, functions, service, service.log) for name, functions in SERVICES.items()]
