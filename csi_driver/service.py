"""What every handler receives."""

from __future__ import annotations

from dataclasses import dataclass, field

from csi_driver.records import Records
from csi_driver.settings import Settings
from runtime_core.interfaces.volume import VolumeBackend
from runtime_core.log import Log
from runtime_core.store.ledger import Ledger
from runtime_core.store.locks import Exclusive


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    settings: Settings
    node_id: str
    backend: VolumeBackend
    records: Records
    ledger: Ledger
    log: Log
    #: by volume id, snapshot id, or name while there is no id yet
    locks: Exclusive = field(default_factory=Exclusive)

    def topology(self) -> dict[str, str]:
        """Where this node's volumes can be reached: on this node."""
        return {**self.settings.topology, f"topology.{self.settings.driver_name}/node": self.node_id}
