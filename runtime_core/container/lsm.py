"""The AppArmor label that a program gets at exec.

SELinux labels are refused before this (see create.py). The file is opened while /proc is still the
host's, and checked to be procfs: a volume over the container's /proc could take the write (CVE-2019-16884).
"""

from __future__ import annotations

import os

from runtime_core.errors import FailedPrecondition, from_oserror
from runtime_core.kernel import syscalls

_FILES = ("/proc/self/attr/apparmor/exec", "/proc/self/attr/exec")  # the second before Linux 5.8


def has_apparmor() -> bool:
    try:
        with open("/sys/module/apparmor/parameters/enabled", "rb") as file:
            return file.read(1) == b"Y"
    except OSError:
        return False


def open_label(profile: str) -> int:
    """Descriptor for `set_label`, -1 when nothing is to be set. By the process that will exec."""
    if profile in ("", "unconfined"):
        return -1
    if not has_apparmor():
        raise FailedPrecondition(f"process.apparmorProfile: {profile!r} needs AppArmor, which this kernel has not")
    for path in _FILES:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue
        if syscalls.filesystem_type(descriptor) != syscalls.PROC_SUPER_MAGIC:
            raise FailedPrecondition(f"{path} is not of procfs")
        return descriptor
    raise FailedPrecondition("process.apparmorProfile: /proc/self/attr is not there")


def set_label(descriptor: int, profile: str) -> None:
    if descriptor < 0:
        return
    try:
        os.write(descriptor, f"exec {profile}".encode())
    except OSError as error:
        raise from_oserror(error, f"process.apparmorProfile: {profile!r}") from error
