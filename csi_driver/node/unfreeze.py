"""Unfreezes a file system before it is unmounted: a frozen one would keep its writers waiting and its device busy for ever."""

from __future__ import annotations

import os

from csi_driver.node import mount_point
from csi_driver.node.mount_point import MountPoint
from csi_driver.service import Service
from runtime_core.kernel import filesystems

#: Documentation/admin-guide/devices.txt
_LOOP_MAJOR = 7


def unfreeze(service: Service, point: MountPoint) -> bool:
    """Unfreeze it; whether it was frozen. Only file systems on loop devices: never the one on which the driver's root is."""
    descriptor = mount_point.open_mounted(point, os.O_RDONLY | os.O_DIRECTORY)
    try:
        device = os.fstat(descriptor).st_dev
        if os.major(device) != _LOOP_MAJOR or device == os.stat(service.settings.root).st_dev:
            return False
        return filesystems.unfreeze(descriptor)
    finally:
        os.close(descriptor)
