"""What the driver announces, and which RPCs it serves: made of the back end's features and of nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from runtime_core.interfaces.volume import Features

#: RPC → the capability without which it is not there
NEEDS = {
    "ControllerPublishVolume": "PUBLISH_UNPUBLISH_VOLUME",
    "ControllerUnpublishVolume": "PUBLISH_UNPUBLISH_VOLUME",
    "CreateSnapshot": "CREATE_DELETE_SNAPSHOT",
    "DeleteSnapshot": "CREATE_DELETE_SNAPSHOT",
    "ListSnapshots": "LIST_SNAPSHOTS",
    "GetSnapshot": "GET_SNAPSHOT",
    "ControllerExpandVolume": "EXPAND_VOLUME",
    "ControllerModifyVolume": "MODIFY_VOLUME",
    "GroupControllerGetCapabilities": "GROUP_CONTROLLER_SERVICE",
    "CreateVolumeGroupSnapshot": "GROUP_CONTROLLER_SERVICE",
    "DeleteVolumeGroupSnapshot": "GROUP_CONTROLLER_SERVICE",
    "GetVolumeGroupSnapshot": "GROUP_CONTROLLER_SERVICE",
    "GetMetadataAllocated": "SNAPSHOT_METADATA_SERVICE",
    "GetMetadataDelta": "SNAPSHOT_METADATA_SERVICE",
    "NodeExpandVolume": "EXPAND_VOLUME",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """Names as in the interface, in its order."""

    #: PluginCapability.Service
    plugin: tuple[str, ...]
    #: PluginCapability.VolumeExpansion: "ONLINE", "OFFLINE" or ""
    expansion: str
    #: ControllerServiceCapability.RPC
    controller: tuple[str, ...]
    #: GroupControllerServiceCapability.RPC
    group_controller: tuple[str, ...]
    #: NodeServiceCapability.RPC
    node: tuple[str, ...]

    def serves(self, rpc: str) -> bool:
        """Whether the driver serves this RPC."""
        return rpc not in NEEDS or NEEDS[rpc] in self.plugin + self.controller


def capabilities(features: Features, *, attach: bool) -> Capabilities:
    """`attach`: volumes have to be published to the node before they are staged."""
    # A volume group and metadata are of snapshots, which a driver without CREATE_DELETE_SNAPSHOT has none of.
    groups, metadata = features.snapshots and features.groups, features.snapshots and features.metadata
    return Capabilities(
        plugin=_names(
            CONTROLLER_SERVICE=True,
            VOLUME_ACCESSIBILITY_CONSTRAINTS=True,
            GROUP_CONTROLLER_SERVICE=groups,
            SNAPSHOT_METADATA_SERVICE=metadata,
            SNAPSHOT_ACCESSIBILITY_CONSTRAINTS=features.snapshots,
        ),
        expansion=features.expansion.upper(),
        controller=_names(
            CREATE_DELETE_VOLUME=True,
            PUBLISH_UNPUBLISH_VOLUME=attach,
            LIST_VOLUMES=True,
            GET_CAPACITY=True,
            CREATE_DELETE_SNAPSHOT=features.snapshots,
            LIST_SNAPSHOTS=features.snapshots,
            CLONE_VOLUME=features.clones,
            PUBLISH_READONLY=attach,
            EXPAND_VOLUME=bool(features.expansion),
            LIST_VOLUMES_PUBLISHED_NODES=attach,
            GET_VOLUME=True,
            SINGLE_NODE_MULTI_WRITER=True,
            MODIFY_VOLUME=bool(features.mutable_parameters),
            GET_SNAPSHOT=features.snapshots,
            GET_VOLUME_HEALTH=True,
            LIST_VOLUME_HEALTH=True,
        ),
        group_controller=_names(CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT=groups),
        node=_names(
            STAGE_UNSTAGE_VOLUME=True,
            GET_VOLUME_STATS=True,
            EXPAND_VOLUME=bool(features.expansion),
            SINGLE_NODE_MULTI_WRITER=True,
            VOLUME_MOUNT_GROUP="mount" in features.access,
            GET_VOLUME_HEALTH=True,
            GET_STORAGE_HEALTH=True,
        ),
    )


def _names(**present: bool) -> tuple[str, ...]:
    return tuple(name for name, is_there in present.items() if is_there)
