"""The functions of the Controller service by RPC."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from csi_driver.controller import (
    capabilities,
    capacity,
    create,
    delete,
    expand,
    health,
    list_snapshots,
    modify,
    publish,
    snapshot,
    validate,
)
from csi_driver.controller import list as volume_list

CONTROLLER: dict[str, Callable[..., Any]] = {
    "ControllerGetCapabilities": capabilities.controller_get_capabilities,
    "CreateVolume": create.create_volume,
    "DeleteVolume": delete.delete_volume,
    "ControllerPublishVolume": publish.controller_publish_volume,
    "ControllerUnpublishVolume": publish.controller_unpublish_volume,
    "ValidateVolumeCapabilities": validate.validate_volume_capabilities,
    "ListVolumes": volume_list.list_volumes,
    "ControllerGetVolume": volume_list.controller_get_volume,
    "ControllerListVolumeHealth": health.controller_list_volume_health,
    "ControllerGetVolumeHealth": health.controller_get_volume_health,
    "GetCapacity": capacity.get_capacity,
    "CreateSnapshot": snapshot.create_snapshot,
    "DeleteSnapshot": snapshot.delete_snapshot,
    "ListSnapshots": list_snapshots.list_snapshots,
    "GetSnapshot": list_snapshots.get_snapshot,
    "ControllerExpandVolume": expand.controller_expand_volume,
    "ControllerModifyVolume": modify.controller_modify_volume,
}
