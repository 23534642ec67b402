"""CSI VolumeCapability: how a volume is used, and whether one volume can be used in all the ways that are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from csi_driver.api.v1 import csi_pb2 as csi
from runtime_core.errors import InvalidArgument
from runtime_core.interfaces.volume import Access, Features

Mode = csi.VolumeCapability.AccessMode
_READ_ONLY = (Mode.SINGLE_NODE_READER_ONLY, Mode.MULTI_NODE_READER_ONLY)
_LARGEST_FLAGS = 4096


@dataclass(frozen=True, slots=True)
class VolumeUse:
    """How a volume is used: access type and file system, without the access mode."""

    access: Access
    #: "" for block, and where the caller leaves it to the driver
    fs_type: str


def parse_capabilities(capabilities: Sequence[csi.VolumeCapability], features: Features) -> VolumeUse:
    """What a volume has to be to serve all of them; InvalidArgument when there is no such volume."""
    if not capabilities:
        raise InvalidArgument("volume_capabilities: is missing")
    uses = [parse_capability(item, features, f"volume_capabilities[{number}]") for number, item in enumerate(capabilities)]
    if len({use.access for use in uses}) > 1:
        raise InvalidArgument("volume_capabilities: no volume is both a block device and a file system")
    named = {use.fs_type for use in uses if use.fs_type}
    if len(named) > 1:
        raise InvalidArgument(f"volume_capabilities: no volume has the file systems {' and '.join(sorted(named))}")
    return VolumeUse(uses[0].access, named.pop() if named else "")


def parse_capability(capability: csi.VolumeCapability, features: Features, field: str = "volume_capability") -> VolumeUse:
    """Access and file system of one capability that this back end can serve."""
    kind = capability.WhichOneof("access_type")
    if kind is None:
        raise InvalidArgument(f"{field}.access_type: is missing")
    if kind not in features.access:
        raise InvalidArgument(f"{field}.{kind}: this back end gives {' and '.join(sorted(features.access))} only")
    mode = capability.access_mode.mode
    if mode == Mode.UNKNOWN:
        raise InvalidArgument(f"{field}.access_mode: is missing")
    if mode not in Mode.Mode.values():
        raise InvalidArgument(f"{field}.access_mode: {mode} is not a mode of CSI 1.13")
    if kind == "block":
        return VolumeUse("block", "")
    fs_type = capability.mount.fs_type
    if fs_type and fs_type not in features.file_systems:
        raise InvalidArgument(f"{field}.mount.fs_type: {fs_type[:32]!r} is not one of {', '.join(features.file_systems)}")
    if sum(len(flag.encode()) for flag in capability.mount.mount_flags) > _LARGEST_FLAGS:
        raise InvalidArgument(f"{field}.mount.mount_flags: are larger than {_LARGEST_FLAGS} bytes")
    return VolumeUse("mount", fs_type)


def is_read_only(capability: csi.VolumeCapability) -> bool:
    """By its access mode."""
    return capability.access_mode.mode in _READ_ONLY


def mismatch(use: VolumeUse, access: Access, fs_type: str) -> str:
    """Why a volume of this access and file system cannot serve `use`; "" when it can."""
    if use.access != access:
        return f"the volume is a {access} volume, not a {use.access} volume"
    if use.fs_type and use.fs_type != fs_type:
        return f"the volume has the file system {fs_type}, not {use.fs_type}"
    return ""
