"""GetPluginInfo: the driver's name and version."""

from __future__ import annotations

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.service import Service
from runtime_core.serving.rpc_handler import Call
from runtime_core.version import VERSION


def get_plugin_info(service: Service, request: csi.GetPluginInfoRequest, call: Call) -> csi.GetPluginInfoResponse:
    return csi.GetPluginInfoResponse(
        name=service.settings.driver_name, vendor_version=VERSION, manifest={"backend": service.settings.backend}
    )
