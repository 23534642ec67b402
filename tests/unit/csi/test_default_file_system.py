"""The file system that a volume gets when nobody names one."""

from __future__ import annotations

import pytest

from csi_driver.requests.default_file_system import choose_smallest
from runtime_core.volumes import sizes
from runtime_core.volumes.image_filesystem import SMALLEST
from runtime_core.volumes.sizes import MIB

_XFS_FIRST, _EXT4_FIRST = ("xfs", "ext4"), ("ext4", "xfs")


def _round(required: int, limit: int, fs_type: str) -> int:
    return sizes.round_up(required, limit, SMALLEST[fs_type])


@pytest.mark.parametrize(
    ("file_systems", "required", "limit", "chosen"),
    [
        (_XFS_FIRST, 10 << 30, 0, "xfs"),
        (_EXT4_FIRST, 10 << 30, 0, "ext4"),
        (_XFS_FIRST, 64 * MIB, 0, "ext4"),
        (_EXT4_FIRST, 64 * MIB, 0, "ext4"),
        (_XFS_FIRST, 300 * MIB - 1, 0, "xfs"),
        (_XFS_FIRST, 299 * MIB, 0, "ext4"),
        (_XFS_FIRST, 64 * MIB, 100 * MIB, "ext4"),
        (_XFS_FIRST, 1, 300 * MIB, "ext4"),
        (_XFS_FIRST, 300 * MIB, 300 * MIB, "xfs"),
        (("btrfs",), 64 * MIB, 0, "btrfs"),
    ],
)
def test_the_first_with_which_the_volume_is_smallest(
    file_systems: tuple[str, ...], required: int, limit: int, chosen: str
) -> None:
    assert choose_smallest(file_systems, _round if len(file_systems) > 1 else lambda *_given: MIB, required, limit) == chosen


@pytest.mark.parametrize(
    ("required", "limit", "chosen"), [(MIB, 4 * MIB, "ext4"), (1 << 63, 0, "xfs"), (1 << 63, 1 << 63, "xfs")]
)
def test_where_none_fits_one_is_named_whose_error_says_most(required: int, limit: int, chosen: str) -> None:
    assert choose_smallest(_XFS_FIRST, _round, required, limit) == chosen
