"""Where a new volume's content comes from: a snapshot or a volume that is there and stays while it is read."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from csi_driver import access
from csi_driver.controller.wish import Wish
from csi_driver.service import Service
from runtime_core.errors import InvalidArgument
from runtime_core.interfaces.volume import Source


@dataclass(frozen=True, slots=True)
class Content:
    source: Source
    size: int
    fs_type: str


def resolve(service: Service, wish: Wish, held: ExitStack) -> Content | None:
    """None for an empty volume. NotFound when there is no such source, InvalidArgument when it is of another kind.

    A snapshot never changes, and many may read it. A volume is quieted while it is cloned, which only one can do.
    """
    if not wish.source_kind:
        return None
    field = f"volume_content_source.{wish.source_kind}"
    if wish.source_kind == "snapshot":
        held.enter_context(service.locks.hold(sharing=[wish.source_id]))
        volume = service.snapshot(wish.source_id, field).volume()
        source = Source("snapshot", wish.source_id, volume)
    else:
        held.enter_context(service.locks.hold(wish.source_id))
        volume = service.volume(wish.source_id, field).volume()
        source = Source("volume", wish.source_id, volume)
    if why := access.mismatch(wish.use, volume.access, volume.fs_type):
        raise InvalidArgument(f"{field}: {why}")
    return Content(source, volume.size, volume.fs_type)
