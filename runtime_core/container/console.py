"""The terminal of a container: a pseudo-terminal of its own devpts."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import termios

from runtime_core.container.program import chown_stdio, install_stdio
from runtime_core.errors import FailedPrecondition, from_oserror
from runtime_core.kernel import mounts, syscalls

_TIOCGPTPEER = 0x5441
_TIOCSPTLCK = 0x40045431
_DEVPTS_SUPER_MAGIC = 0x1CD1


def open_console(size: dict[str, int], uid: int, *, at_dev_console: bool) -> int:
    """Make a terminal the controlling one, 0, 1 and 2, and with `at_dev_console` /dev/console; its master."""
    try:
        master = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise from_oserror(error, "process.terminal: the container has no devpts at /dev/pts") from error
    if syscalls.filesystem_type(master) != _DEVPTS_SUPER_MAGIC:
        raise FailedPrecondition("process.terminal: /dev/pts of the container is no devpts")
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    # The peer by descriptor: /dev/pts/N could be replaced meanwhile (CVE-2025-52565).
    peer = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    if size:
        window = struct.pack("HHHH", size.get("height", 0), size.get("width", 0), 0, 0)
        fcntl.ioctl(master, termios.TIOCSWINSZ, window)
    if at_dev_console:
        _bind_at_dev_console(peer)
    chown_stdio((peer, peer, peer), uid)
    fcntl.ioctl(peer, termios.TIOCSCTTY, 0)
    install_stdio((peer, peer, peer))
    os.close(peer)
    return master


def _bind_at_dev_console(peer: int) -> None:
    """Mount the terminal at /dev/console; a symlink there is refused (CVE-2026-88264)."""
    try:
        os.close(os.open("/dev/console", os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        pass
    target = os.open("/dev/console", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if stat.S_ISLNK(os.fstat(target).st_mode):
            raise FailedPrecondition("/dev/console of the image is a symbolic link")
        tree = mounts.clone("", directory=peer)
        mounts.attach(tree, target)
        os.close(tree)
    finally:
        os.close(target)
