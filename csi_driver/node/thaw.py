"""A frozen file system keeps its writers waiting, and, once it is unmounted, its device for ever: it is thawed before."""

from __future__ import annotations

import os

from csi_driver.node import place
from csi_driver.node.place import Place
from csi_driver.service import Service
from runtime_core.kernel import filesystems, loop_device

#: Documentation/admin-guide/devices.txt
_LOOP_MAJOR = 7


def thaw(service: Service, there: Place) -> bool:
    """Whether it was frozen. Nothing but the file system of an image below our root is ours to thaw."""
    descriptor = place.open_there(there, os.O_RDONLY | os.O_DIRECTORY)
    try:
        device = os.fstat(descriptor).st_dev
        if os.major(device) != _LOOP_MAJOR:
            return False
        backing = loop_device.backing_file(os.minor(device)).removesuffix(" (deleted)")
        return backing.startswith(os.path.realpath(service.settings.root) + "/") and filesystems.thaw(descriptor)
    finally:
        os.close(descriptor)
