"""GetPluginCapabilities: which services stand behind this socket."""

from __future__ import annotations

from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.service import Service
from runtime_core.serving.rpc_handler import Call

_Service = csi.PluginCapability.Service
_Expansion = csi.PluginCapability.VolumeExpansion


def get_plugin_capabilities(
    service: Service, request: csi.GetPluginCapabilitiesRequest, call: Call
) -> csi.GetPluginCapabilitiesResponse:
    found = service.capabilities
    answer = [csi.PluginCapability(service=_Service(type=name)) for name in found.plugin]
    if found.expansion:
        answer.append(csi.PluginCapability(volume_expansion=_Expansion(type=found.expansion)))
    return csi.GetPluginCapabilitiesResponse(capabilities=answer)
