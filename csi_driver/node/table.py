"""The functions of the Node service by RPC."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from csi_driver.node.expand import expand_volume
from csi_driver.node.health import get_storage_health, get_volume_health
from csi_driver.node.info import get_capabilities, get_info
from csi_driver.node.publish import publish_volume
from csi_driver.node.stage import stage_volume
from csi_driver.node.stats import get_volume_stats
from csi_driver.node.unpublish import unpublish_volume
from csi_driver.node.unstage import unstage_volume

NODE: dict[str, Callable[..., Any]] = {
    "NodeStageVolume": stage_volume,
    "NodeUnstageVolume": unstage_volume,
    "NodePublishVolume": publish_volume,
    "NodeUnpublishVolume": unpublish_volume,
    "NodeGetVolumeStats": get_volume_stats,
    "NodeGetVolumeHealth": get_volume_health,
    "NodeGetStorageHealth": get_storage_health,
    "NodeExpandVolume": expand_volume,
    "NodeGetCapabilities": get_capabilities,
    "NodeGetInfo": get_info,
}
