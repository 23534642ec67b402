"""A frozen file system keeps its writers waiting, and, once it is unmounted, its device for ever: it is thawed before."""

from __future__ import annotations

import os

from csi_driver.node import place
from csi_driver.node.place import Place
from csi_driver.service import Service
from runtime_core.kernel import filesystems

#: Documentation/admin-guide/devices.txt
_LOOP_MAJOR = 7


def thaw(service: Service, there: Place) -> bool:
    """Whether it was frozen. Only a file system in an image is ours to thaw: not the one that our root is on."""
    descriptor = place.open_there(there, os.O_RDONLY | os.O_DIRECTORY)
    try:
        device = os.fstat(descriptor).st_dev
        if os.major(device) != _LOOP_MAJOR or device == os.stat(service.settings.root).st_dev:
            return False
        return filesystems.thaw(descriptor)
    finally:
        os.close(descriptor)
