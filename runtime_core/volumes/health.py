"""Finds problems of a volume without waiting for a file system that hangs: by sysfs and mountinfo, else in a thread."""

from __future__ import annotations

import errno
import os
import threading

from runtime_core.interfaces.volume import Problem
from runtime_core.kernel import loop_device
from runtime_core.kernel.decimal_number import parse_decimal
from runtime_core.volumes import mount_table


def image_problems(image: str, size: int) -> list[Problem]:
    try:
        found = os.stat(image, follow_symlinks=False).st_size
    except FileNotFoundError:
        return [Problem("ImageMissing", f"its image {image} is gone")]
    if found < size:
        return [Problem("ImageMissing", f"its image {image} has {found} of {size} bytes")]
    return []


def mount_problems(mounted: str) -> list[Problem]:
    """Of the file system at `mounted`, with the loop device under it where there is one."""
    entry = mount_table.find_mount(mounted)
    if entry is None:
        return [Problem("NotMounted", f"nothing is mounted at {mounted}")]
    problems = []
    if entry.source.startswith("/dev/loop"):
        number = parse_decimal(entry.source.removeprefix("/dev/loop"))
        problems += [] if number is None else device_problems(number)
    problems += _recorded_errors(entry)
    if "emergency_ro" in entry.super_options or ("ro" in entry.super_options and "rw" in entry.options):
        problems.append(Problem("ReadOnlyRemount", f"the file system at {mounted} became read-only after an error"))
    if "shutdown" in entry.super_options:
        problems.append(Problem("FilesystemError", f"the file system at {mounted} shut down after an error"))
    return problems


def device_problems(number: int) -> list[Problem]:
    backing = loop_device.backing_file(number)
    if not backing:
        return [Problem("DeviceGone", f"/dev/loop{number} was detached from its image")]
    if backing.endswith(" (deleted)"):
        return [Problem("DeviceGone", f"the image of /dev/loop{number} was deleted")]
    return []


def _recorded_errors(entry: mount_table.Entry) -> list[Problem]:
    """ext4 counts them (Documentation/ABI/testing/sysfs-fs-ext4)."""
    name = os.path.basename(entry.source)
    try:
        with open(f"/sys/fs/{entry.fs_type}/{name}/errors_count", "rb", buffering=0) as file:
            count = int(file.read())
    except (FileNotFoundError, ValueError):
        return []
    return [Problem("FilesystemError", f"{entry.fs_type} on {name} recorded {count} errors")] if count else []


class ShutdownCheck:
    """Asks xfs itself, as it tells nowhere else that it shut down: opening its root is refused then.

    A file system that hangs keeps one thread, and is not asked again until it answers.
    """

    _SECONDS = 1.0

    def __init__(self) -> None:
        self._asking: dict[str, threading.Thread] = {}

    def is_shut_down(self, mounted: str) -> bool:
        before = self._asking.get(mounted)
        if before is not None and before.is_alive():
            return False
        refused = threading.Event()
        thread = threading.Thread(target=_ask, args=(mounted, refused), daemon=True)
        self._asking[mounted] = thread
        thread.start()
        thread.join(self._SECONDS)
        if not thread.is_alive():
            self._asking.pop(mounted, None)
        return refused.is_set()


def _ask(mounted: str, refused: threading.Event) -> None:
    try:
        os.close(os.open(mounted, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.EIO:
            refused.set()
