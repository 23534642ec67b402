"""What is remembered of volumes, snapshots and groups, as JSON in the store and as frozen objects in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from runtime_core.interfaces.volume import Access, Volume
from runtime_core.store.database import Database
from runtime_core.store.records import Collection

#: "making" until the back end is done; "deleting" once nothing stops it any more. Recovery ends both.
Phase = Literal["making", "ready", "deleting"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Staging:
    """Where NodeStageVolume made the volume usable, and how."""

    path: str
    flags: tuple[str, ...] = ()
    read_only: bool = False
    mount_group: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One NodePublishVolume."""

    read_only: bool = False
    flags: tuple[str, ...] = ()
    #: CSI AccessMode as its number
    access_mode: int = 0
    mount_group: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeRecord:
    """A volume: what was asked for, and where it is attached, staged and published."""

    id: str
    #: CreateVolume's name; for an ephemeral volume the id that the kubelet gave it
    name: str
    size: int
    access: Access
    fs_type: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    mutable_parameters: Mapping[str, str] = field(default_factory=dict)
    source_kind: str = ""
    source_id: str = ""
    #: ns since the epoch
    created: int = 0
    phase: Phase = "making"
    ephemeral: bool = False
    #: size that the back end is growing it to; 0 when it is not. Recovery goes on with it
    growing_to: int = 0
    #: mutable parameters that the back end is being told; recovery tells them again
    changing_to: Mapping[str, str] | None = None
    #: node id → read-only: ControllerPublishVolume
    attached: Mapping[str, bool] = field(default_factory=dict)
    staging: Staging | None = None
    #: target path → how: NodePublishVolume
    targets: Mapping[str, Target] = field(default_factory=dict)

    def volume(self) -> Volume:
        """As the back end sees it."""
        parameters = {**self.parameters, **self.mutable_parameters}
        return Volume(id=self.id, size=self.size, access=self.access, fs_type=self.fs_type, parameters=parameters)


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRecord:
    """A snapshot, also one that is a member of a group."""

    id: str
    name: str
    volume_id: str
    #: the volume at that time, for restores when it is gone
    size: int
    access: Access
    fs_type: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    created: int = 0
    group_id: str = ""
    phase: Phase = "making"

    def volume(self) -> Volume:
        """As the back end sees it: a volume that can be read."""
        return Volume(
            id=self.volume_id, size=self.size, access=self.access, fs_type=self.fs_type, parameters=self.parameters
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRecord:
    """A group snapshot and the ids of its members."""

    id: str
    name: str
    #: in the order of the request's volumes
    snapshot_ids: tuple[str, ...]
    created: int = 0
    phase: Phase = "making"


@dataclass(frozen=True, slots=True)
class Records:
    """All records of the driver, by kind."""

    volumes: Collection[VolumeRecord]
    snapshots: Collection[SnapshotRecord]
    groups: Collection[GroupRecord]

    @classmethod
    def load(cls, database: Database) -> Records:
        """The three collections in `database`."""
        return cls(
            Collection(database, "volume", encode=_encode_volume, decode=_volume),
            Collection(database, "snapshot", encode=_encode, decode=lambda document: SnapshotRecord(**document)),
            Collection(database, "group", encode=_encode, decode=_group),
        )


def _encode(record: Any) -> dict[str, Any]:
    """As asdict, but without copies of what is about to be JSON anyway: a call writes its record three times."""
    return {name: getattr(record, name) for name in record.__slots__}


def _encode_volume(record: VolumeRecord) -> dict[str, Any]:
    return {
        **_encode(record),
        "staging": asdict(record.staging) if record.staging else None,
        "targets": {path: asdict(target) for path, target in record.targets.items()},
    }


def _volume(document: dict[str, Any]) -> VolumeRecord:
    staging = document.pop("staging")
    targets = {path: Target(**{**t, "flags": tuple(t["flags"])}) for path, t in document.pop("targets").items()}
    return VolumeRecord(
        **document,
        staging=Staging(**{**staging, "flags": tuple(staging["flags"])}) if staging else None,
        targets=targets,
    )


def _group(document: dict[str, Any]) -> GroupRecord:
    return GroupRecord(**{**document, "snapshot_ids": tuple(document["snapshot_ids"])})
