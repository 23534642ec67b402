"""The contract of `trivet.volume`: where a CSI volume's bytes live, on this node.

A back end keeps no records beside what lies in its own directory: names, publications and
times are the driver's. Ids are the driver's too and match `ID`; a back end may make a path
of them, and of nothing else. Every method may be called again after a crash at any
of its steps, and then ends what it began; `delete`, `delete_snapshot` and `detach` succeed
when there is nothing. Calls for one id never overlap; calls for different ids do.
The suite: runtime_core/testing/volume_contract.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

ID = re.compile(r"[a-z][a-z0-9-]{0,62}")
Access = Literal["mount", "block"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What the driver may announce; csi_driver makes its capabilities of it and of nothing else."""

    access: frozenset[Access]
    #: file systems that a StorageClass may ask for, the default first
    file_systems: tuple[str, ...] = ()
    snapshots: bool = False
    clones: bool = False
    #: snapshots of several volumes at one instant
    groups: bool = False
    #: "online": while it is published; "offline": only while it is not staged
    expansion: Literal["", "online", "offline"] = ""
    #: `allocated` and `changed`, hence SnapshotMetadata
    metadata: bool = False
    #: keys of `Volume.parameters` that may change after creation (VolumeAttributesClass)
    mutable_parameters: frozenset[str] = frozenset()
    #: keys of StorageClass parameters that this back end understands
    parameters: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """One volume as it shall be."""

    id: str
    #: bytes, as `round_size` gave them; the volume holds so many and not more
    size: int
    access: Access
    #: "" for block, else one of Features.file_systems
    fs_type: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a new volume's content comes from."""

    kind: Literal["snapshot", "volume"]
    id: str
    #: of the snapshot's volume, or the volume, at that time
    volume: Volume


@dataclass(frozen=True, slots=True)
class Capacity:
    """Bytes of the file system below."""

    available: int
    total: int
    smallest_volume: int
    largest_volume: int


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes of a volume, and its inodes where the file system counts them."""

    total: int
    available: int
    used: int
    #: None for block
    inodes: tuple[int, int, int] | None = None


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of bytes of a block view of a snapshot."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong with a volume: a reason in CamelCase for programs, a sentence for people.

    Reasons: ImageMissing, DeviceGone, FilesystemError, ReadOnlyRemount, QuotaExceeded, NotMounted, ExpansionPending.
    """

    reason: str
    message: str


class VolumeBackend(Protocol):
    """Made as `backend(directory, settings)`: a directory of its own, and the driver's matter from the configuration.

    InvalidArgument from the constructor names a setting; FailedPrecondition says what the file system lacks.
    """

    def __init__(self, directory: str, settings: Mapping[str, object]) -> None: ...

    def features(self) -> Features:
        """What this back end can do on this node; it does not change while the driver runs."""
        ...

    def check(self, volume: Volume) -> None:
        """InvalidArgument naming the parameter (`parameters.enforcement: ...`), or what of access and fs_type cannot be."""
        ...

    def round_size(self, required: int, limit: int, fs_type: str) -> int:
        """The size that a volume of at least `required` bytes gets. OutOfRange when `limit` (0: none) is below it."""
        ...

    def capacity(self) -> Capacity:
        """Room for volumes now. An error when the file system does not answer."""
        ...

    # ---- the controller service

    def create(self, volume: Volume, source: Source | None) -> None:
        """Make it, filled from `source`. ResourceExhausted when the space is not there; then nothing is left."""
        ...

    def delete(self, volume_id: str) -> None:
        """Delete a volume with its data. Idempotent; FailedPrecondition while it is mounted."""
        ...

    def expand(self, volume: Volume) -> bool:
        """Let it be of `volume.size`; True when the node has to `grow` it once it is mounted."""
        ...

    def modify(self, volume: Volume) -> None:
        """Apply changed mutable parameters."""
        ...

    def snapshot(self, pairs: Sequence[tuple[str, Volume]]) -> None:
        """Make snapshots (snapshot id, volume) of one instant, mounted or not; of all or of none."""
        ...

    def delete_snapshot(self, snapshot_id: str) -> None:
        """Delete a snapshot; volumes made from it stay. Idempotent."""
        ...

    def allocated(self, snapshot_id: str, start: int) -> Iterator[Extent]:
        """What holds data, from byte `start` on, in order, not overlapping."""
        ...

    def changed(self, base_id: str, target_id: str, start: int) -> Iterator[Extent]:
        """What differs between two snapshots of one volume."""
        ...

    def volumes(self) -> set[str]:
        """Ids of what is on disk, half-made ones too: recovery deletes those that no record knows."""
        ...

    def snapshots(self) -> set[str]:
        """The same of snapshots."""
        ...

    # ---- the node service

    def mount(self, volume: Volume, flags: Sequence[str], *, read_only: bool) -> int:
        """The descriptor of a detached mount of a "mount" volume; made ready (mkfs, fsck, growth left over) on the way.
        Again while it is mounted: one more mount of the same file system."""
        ...

    def device(self, volume: Volume, *, read_only: bool) -> str:
        """The device node of a "block" volume, attached now where it was not."""
        ...

    def detach(self, volume_id: str) -> None:
        """Give back what `mount` or `device` attached, once nothing is mounted any more. When it returns nobody holds it:
        who does for longer than a mount namespace needs to come or go is named by Unavailable."""
        ...

    def grow(self, volume: Volume, mounted: str) -> None:
        """Let the device, and the file system mounted at `mounted` ("" for block), fill `volume.size`.
        FailedPrecondition when that can only happen at the next mount."""
        ...

    def usage(self, volume: Volume, mounted: str) -> Usage:
        """`mounted`: the path where it is mounted, or the device."""
        ...

    def problems(self, volume: Volume, mounted: str) -> list[Problem]:
        """What is wrong with it now; `mounted` is "" when it is not staged. Does not wait for a hung file system."""
        ...
