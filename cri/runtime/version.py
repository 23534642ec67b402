"""Version: who is serving."""

from __future__ import annotations

from cri.api.v1 import api_pb2 as api
from cri.service import Service
from runtime_core.serving.rpc_handler import Call
from runtime_core.version import VERSION

_API_VERSION = "v1"
_KUBELET_VERSION = "0.1.0"


def version(_service: Service, _request: api.VersionRequest, _call: Call) -> api.VersionResponse:
    """Names and versions of runtime and API."""
    return api.VersionResponse(
        version=_KUBELET_VERSION,
        runtime_name="trivet",
        runtime_version=VERSION,
        runtime_api_version=_API_VERSION,
    )
