"""The functions of the Identity service by RPC."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from csi_driver.identity import capabilities, info, probe

IDENTITY: dict[str, Callable[..., Any]] = {
    "GetPluginInfo": info.get_plugin_info,
    "GetPluginCapabilities": capabilities.get_plugin_capabilities,
    "Probe": probe.probe,
}
