"""GetPluginInfo: the driver's name and version."""

from __future__ import annotations

from importlib.metadata import version

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.service import Service
from runtime_core.serving.gate import Call

_VERSION = version("trivet")


def get_plugin_info(service: Service, request: csi.GetPluginInfoRequest, call: Call) -> csi.GetPluginInfoResponse:
    return csi.GetPluginInfoResponse(
        name=service.settings.driver_name, vendor_version=_VERSION, manifest={"backend": service.settings.backend}
    )
