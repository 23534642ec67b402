"""RuntimeConfig and UpdateRuntimeConfig: what kubelet and runtime must agree on."""

from __future__ import annotations

from cri.api.v1 import api_pb2 as api
from cri.service import Service
from runtime_core.serving.rpc_handler import Call


def runtime_config(service: Service, _request: api.RuntimeConfigRequest, _call: Call) -> api.RuntimeConfigResponse:
    """The cgroup driver, which the kubelet must use too."""
    driver = api.SYSTEMD if service.cgroup_driver == "systemd" else api.CGROUPFS
    return api.RuntimeConfigResponse(linux=api.LinuxRuntimeConfiguration(cgroup_driver=driver))


def update_runtime_config(
    _service: Service, _request: api.UpdateRuntimeConfigRequest, _call: Call
) -> api.UpdateRuntimeConfigResponse:
    """The pod address range is the network configuration's matter; it is taken and not used."""
    return api.UpdateRuntimeConfigResponse()
