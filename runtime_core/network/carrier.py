"""Whether a link has a carrier (ethtool's ETHTOOL_GLINK). Cold."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import socket
import struct

_SIOCETHTOOL, _ETHTOOL_GLINK = 0x8946, 0x0A


def has_carrier(name: str) -> bool:
    """Of the link `name` of this thread's namespace.

    Asking makes the kernel act at once on a change that is still queued: a bridge forwards for a port only then."""
    answer = (ctypes.c_uint32 * 2)(_ETHTOOL_GLINK, 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        try:
            fcntl.ioctl(control, _SIOCETHTOOL, struct.pack("16sP16x", name.encode(), ctypes.addressof(answer)))
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:  # a kind of link that cannot be without one, such as dummy
                raise
            return True
    return bool(answer[1])
