"""Which function serves which RPC. What the back end cannot do answers UNIMPLEMENTED by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.message_factory import GetMessageClass

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.controller.table import CONTROLLER
from csi_driver.group_controller.table import GROUP_CONTROLLER
from csi_driver.identity.table import IDENTITY
from csi_driver.node.table import NODE
from csi_driver.service import Service
from csi_driver.snapshot_metadata.table import SNAPSHOT_METADATA
from runtime_core.errors import Unimplemented
from runtime_core.serving.rpc_handler import Call, RpcHandler

SERVICES: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    "Identity": IDENTITY,
    "Controller": CONTROLLER,
    "GroupController": GROUP_CONTROLLER,
    "SnapshotMetadata": SNAPSHOT_METADATA,
    "Node": NODE,
}


def rpc_handlers(service: Service) -> list[RpcHandler]:
    """The five services of CSI v1."""
    services = csi.DESCRIPTOR.services_by_name
    can = service.capabilities
    return [
        RpcHandler(
            services[name],
            GetMessageClass,
            {rpc: function if can.serves(rpc) else _refuse for rpc, function in functions.items()},
            service,
            service.log,
            service.timings,
        )
        for name, functions in SERVICES.items()
    ]


def _refuse(service: Service, request: Any, call: Call) -> Any:
    attach = "" if service.settings.attach else " and without --attach"
    raise Unimplemented(f"{call.method}: is not served with the back end {service.settings.backend}{attach}")
