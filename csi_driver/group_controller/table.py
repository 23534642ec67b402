"""The functions of the GroupController service by RPC."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from csi_driver.group_controller import capabilities, create, delete, get

GROUP_CONTROLLER: dict[str, Callable[..., Any]] = {
    "GroupControllerGetCapabilities": capabilities.group_controller_get_capabilities,
    "CreateVolumeGroupSnapshot": create.create_volume_group_snapshot,
    "DeleteVolumeGroupSnapshot": delete.delete_volume_group_snapshot,
    "GetVolumeGroupSnapshot": get.get_volume_group_snapshot,
}
