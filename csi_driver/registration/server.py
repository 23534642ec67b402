"""Registration with the kubelet: a socket in its plugins_registry directory that says where the driver is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message_factory import GetMessageClass

from csi_driver.api.registration import registration_pb2 as api
from csi_driver.settings import Settings
from runtime_core.log import Log
from runtime_core.serving import unix_server
from runtime_core.serving.rpc_handler import Call, RpcHandler

#: what the kubelet compares is the major number
_VERSIONS = ("1.13.0",)


class Registration:
    """There from `start` to `stop`: the kubelet takes a driver for gone when its socket goes."""

    def __init__(self, settings: Settings, log: Log) -> None:
        self._settings, self._log = settings, log
        self.path = settings.kubelet_dir / "plugins_registry" / f"{settings.driver_name}-reg.sock"
        self._server: grpc.Server | None = None

    def start(self) -> None:
        """Once the driver itself is served: the kubelet calls it at once."""
        functions: dict[str, Callable[..., Any]] = {
            "GetInfo": Registration._get_info,
            "NotifyRegistrationStatus": Registration._notify,
        }
        service = api.DESCRIPTOR.services_by_name["Registration"]
        unix_server.prepare_socket(self.path)
        self._server = unix_server.make_server([RpcHandler(service, GetMessageClass, functions, self, self._log)])
        unix_server.bind(self._server, self.path)
        self._server.start()

    def stop(self, seconds: float) -> None:
        """Remove the socket, then let calls end for `seconds`."""
        if self._server is not None:
            self.path.unlink(missing_ok=True)
            self._server.stop(seconds).wait()

    def _get_info(self, request: api.InfoRequest, call: Call) -> api.PluginInfo:
        endpoint: Path = unix_server.socket_path(self._settings.endpoint, "--endpoint")
        return api.PluginInfo(
            type="CSIPlugin", name=self._settings.driver_name, endpoint=str(endpoint), supported_versions=_VERSIONS
        )

    def _notify(self, request: api.RegistrationStatus, call: Call) -> api.RegistrationStatusResponse:
        """When the kubelet refused, it comes again by itself."""
        if request.plugin_registered:
            self._log.info("registered with the kubelet")
        else:
            self._log.error("the kubelet refused the registration", error=request.error)
        return api.RegistrationStatusResponse()
