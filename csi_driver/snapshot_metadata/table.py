"""The functions of the SnapshotMetadata service by RPC."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from csi_driver.snapshot_metadata import streams

SNAPSHOT_METADATA: dict[str, Callable[..., Any]] = {
    "GetMetadataAllocated": streams.get_metadata_allocated,
    "GetMetadataDelta": streams.get_metadata_delta,
}
