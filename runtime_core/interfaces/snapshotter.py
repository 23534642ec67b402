"""The contract of `trivet.snapshotter`: image layers to root file systems.

A committed layer is named by its chain ID (OCI image spec, config.md: "sha256:<hex>");
an active snapshot by a container's id. Layers are immutable once committed, and shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from runtime_core.interfaces.runtime import RootMount


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes and inodes on disk."""

    size_bytes: int
    inodes: int


@runtime_checkable
class Snapshotter(Protocol):
    """The contract: runtime_core/testing/snapshotter_contract.py."""

    def stage(self, chain_id: str, parent: str) -> str:
        """An empty private directory that the layer `chain_id` on `parent` ("" = none) is unpacked
        into. What an earlier interrupted attempt left is discarded. Whiteouts come as overlayfs has them: a
        character device 0:0, and trusted.overlay.opaque on a directory. NotFound for an unknown parent."""
        ...

    def commit(self, chain_id: str) -> None:
        """Make the staged layer durable and visible, atomically. Committing twice is no error; NotFound when it
        was not staged."""
        ...

    def abandon(self, chain_id: str) -> None:
        """Drop a staged layer. Idempotent."""
        ...

    def has(self, chain_id: str) -> bool:
        """Whether the layer is committed."""
        ...

    def layers(self) -> list[str]:
        """Chain IDs of all committed layers."""
        ...

    def remove_layer(self, chain_id: str) -> None:
        """Idempotent. The caller knows that nothing stands on it."""
        ...

    def prepare(self, key: str, chain_ids: Sequence[str], *, read_only: bool = False) -> RootMount:
        """A snapshot on the layers, base layer first. AlreadyExists when the key is taken, NotFound for an
        unknown layer."""
        ...

    def view(self, chain_ids: Sequence[str]) -> RootMount:
        """A read-only root on the layers, without a snapshot of its own."""
        ...

    def mount(self, key: str) -> RootMount:
        """What `prepare` gave; NotFound for an unknown key."""
        ...

    def remove(self, key: str) -> None:
        """Idempotent: removing what is gone succeeds, so that a retry can finish."""
        ...

    def snapshots(self) -> list[str]:
        """Keys of all active snapshots."""
        ...

    def layers_in_use(self) -> set[str]:
        """Chain IDs that a snapshot stands on."""
        ...

    def layer_usage(self, chain_id: str) -> Usage:
        """Of one committed layer, which never changes: it is counted once. NotFound for an unknown one."""
        ...

    def usage(self, key: str) -> Usage:
        """Of the writable layer alone."""
        ...
