"""The content source of a new volume: a snapshot or a volume, locked while it is read."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from csi_driver.controller.volume_request import VolumeRequest
from csi_driver.requests import volume_capability
from csi_driver.service import Service
from runtime_core.errors import InvalidArgument
from runtime_core.interfaces.volume import Source


@dataclass(frozen=True, slots=True)
class ContentSource:
    source: Source
    size: int
    fs_type: str


def resolve_content_source(service: Service, volume_request: VolumeRequest, locks: ExitStack) -> ContentSource | None:
    """None for an empty volume. NotFound when there is no such source, InvalidArgument when it is of another kind.

    A snapshot never changes, and many may read it. A volume is quieted while it is cloned, which only one can do.
    """
    if not volume_request.source_kind:
        return None
    field = f"volume_content_source.{volume_request.source_kind}"
    if volume_request.source_kind == "snapshot":
        locks.enter_context(service.locks.hold(shared=[volume_request.source_id]))
        volume = service.snapshot(volume_request.source_id, field).volume()
        source = Source("snapshot", volume_request.source_id, volume)
    else:
        locks.enter_context(service.locks.hold(volume_request.source_id))
        volume = service.volume(volume_request.source_id, field).volume()
        source = Source("volume", volume_request.source_id, volume)
    if reason := volume_capability.mismatch(volume_request.use, volume.access, volume.fs_type):
        raise InvalidArgument(f"{field}: {reason}")
    return ContentSource(source, volume.size, volume.fs_type)
