"""What every handler receives."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from csi_driver.capabilities import Capabilities, capabilities
from csi_driver.records.flusher import Flusher
from csi_driver.records.locks import OperationLocks
from csi_driver.records.node_state import NodeState
from csi_driver.records.schema import Records, SnapshotRecord, VolumeRecord
from csi_driver.requests import topology
from csi_driver.settings import Settings
from runtime_core.errors import NotFound
from runtime_core.interfaces.volume import Features, VolumeBackend
from runtime_core.log import Log
from runtime_core.serving.timings import Timings
from runtime_core.store.ledger import Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Everything that a handler needs; made once by the daemon."""

    settings: Settings
    node_id: str
    backend: VolumeBackend
    records: Records
    ledger: Ledger
    store: Flusher
    log: Log
    #: by volume id, snapshot id, group id, or name while there is no id yet
    locks: OperationLocks = field(default_factory=OperationLocks)
    #: from counting the volumes of this node to adding one
    attaching: threading.Lock = field(default_factory=threading.Lock)
    timings: Timings = field(default_factory=Timings)
    node: NodeState = field(default_factory=NodeState)

    @property
    def features(self) -> Features:
        """What the back end can do."""
        return self.backend.features()

    @property
    def capabilities(self) -> Capabilities:
        """What the driver announces."""
        return capabilities(self.features, attach=self.settings.attach)

    def topology(self) -> dict[str, str]:
        """Where this node's volumes can be reached: on this node."""
        return {**self.settings.topology, f"topology.{self.settings.driver_name}/node": topology.segment_value(self.node_id)}

    def volume(self, volume_id: str, field: str = "volume_id") -> VolumeRecord:
        """The record of a volume that the cluster may use; NotFound for any other id."""
        record = self.records.volumes.find(volume_id)
        if record is None or record.phase != "ready" or record.ephemeral:
            raise NotFound(f"{field}: there is no volume {volume_id[:128]!r}")
        return record

    def snapshot(self, snapshot_id: str, field: str = "snapshot_id") -> SnapshotRecord:
        """The record of a complete snapshot; NotFound, naming `field`, for any other id."""
        record = self.records.snapshots.find(snapshot_id)
        if record is None or record.phase != "ready":
            raise NotFound(f"{field}: there is no snapshot {snapshot_id[:128]!r}")
        return record
