"""Reading mountinfo."""

from __future__ import annotations

from runtime_core.kernel import mounts


def test_mount_points_are_unescaped_and_in_order() -> None:
    """Space, tab, newline and backslash are octal in mountinfo (proc(5)); bytes survive as they are."""
    text = (
        b"22 27 0:21 / /proc rw - proc proc rw\n"
        b"23 27 0:22 / /a\\040b\\011c\\012d\\134040 rw shared:1 master:2 - tmpfs x rw\n"
        b"24 27 0:23 / /\xff rw - tmpfs x rw\n"
    )
    assert mounts.mount_points(text) == ["/proc", "/a b\tc\nd\\040", "/\udcff"]
