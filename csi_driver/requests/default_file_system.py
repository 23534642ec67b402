"""The file system of a volume whose request names none."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from runtime_core.errors import OutOfRange
from runtime_core.interfaces.volume import VolumeBackend

_TOO_LARGE = 1 << 64


def default_file_system(backend: VolumeBackend, required: int, limit: int) -> str:
    """The file system for a volume of `required` to `limit` bytes (0: no limit) of this back end."""
    return choose_smallest(backend.features().file_systems, backend.round_size, required, limit)


def choose_smallest(file_systems: Sequence[str], round_size: Callable[[int, int, str], int], required: int, limit: int) -> str:
    """The first of those with which the volume is smallest: some need more room than is asked for.

    When the limit is too low for all of them: of those, the one that could do with the lowest.
    """

    def size(fs_type: str) -> int:
        try:
            return round_size(required, limit, fs_type)
        except OutOfRange:
            return _TOO_LARGE

    chosen = min(file_systems, key=size)
    if limit and size(chosen) == _TOO_LARGE:
        return choose_smallest(file_systems, round_size, required, 0)
    return chosen
