"""Tap devices, by /dev/net/tun (tuntap.txt): a link whose other end is a program, such as a virtual machine. Cold."""

from __future__ import annotations

import fcntl
import os
import struct

from runtime_core.errors import NotFound, PermissionDenied

_DEVICE = "/dev/net/tun"
_TUNSETIFF, _TUNSETPERSIST, _TUNSETOWNER, _TUNSETGROUP = 0x400454CA, 0x400454CB, 0x400454CC, 0x400454CE
_IFF_TAP, _IFF_MULTI_QUEUE, _IFF_NO_PI, _IFF_VNET_HDR = 0x2, 0x100, 0x1000, 0x4000


def add_tap(name: str, *, multi_queue: bool, owner: int | None, group: int | None) -> None:
    """A tap in the network namespace of this thread that stays when nobody has it open."""
    flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR | (_IFF_MULTI_QUEUE if multi_queue else 0)
    descriptor = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        if owner is not None:
            fcntl.ioctl(descriptor, _TUNSETOWNER, owner)
        if group is not None:
            fcntl.ioctl(descriptor, _TUNSETGROUP, group)
        fcntl.ioctl(descriptor, _TUNSETPERSIST, 1)
    finally:
        os.close(descriptor)


def check_device() -> None:
    """NotFound when this node makes no taps, PermissionDenied when the caller may not."""
    if not os.path.exists(_DEVICE):
        raise NotFound(f"there is no {_DEVICE}")
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        raise PermissionDenied(f"{_DEVICE} may not be opened")
