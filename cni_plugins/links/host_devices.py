"""Finding a network device of the node by what the plugin host-device is told of it. Cold."""

from __future__ import annotations

import importlib
import os
import re

from cni_plugins.options.link_options import hardware_address, interface_name
from runtime_core.errors import InvalidArgument, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime_core.cni.request import Request
    from runtime_core.network.links import Link, Links

_SYS = "/sys"
#: drivers that hand a device to a program and show no network interface
_USERSPACE_DRIVERS = ("vfio-pci", "uio_pci_generic", "igb_uio")
_BUS_ADDRESS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]*")


class Device:
    """Which one is meant: the first that is given of device, hwaddr, kernelpath and pciBusID; runtimeConfig.deviceID, on the
    PCI or the auxiliary bus, goes before pciBusID."""

    __slots__ = ("directory", "field", "is_given", "is_userspace", "mac", "name")

    def __init__(self, request: Request) -> None:
        self.name = self.mac = self.directory = ""
        self.is_userspace = False
        given = {key: request.option(key, str, "") for key in ("device", "hwaddr", "kernelpath", "pciBusID")}
        by_runtime = request.section("runtimeConfig").get("deviceID")
        on_pci, on_auxiliary = _by_runtime(by_runtime) if by_runtime else ("", "")
        pci = on_pci or ("" if on_auxiliary else given["pciBusID"] and _on_bus("pci", given["pciBusID"], "pciBusID"))
        if pci:
            self.is_userspace = _driver(pci) in _USERSPACE_DRIVERS
        self.field = next(
            (key for key in ("device", "hwaddr", "kernelpath") if given[key]), "deviceID" if by_runtime else "pciBusID"
        )
        self.is_given = bool(by_runtime or any(given.values()))
        if self.field == "device":
            self.name = interface_name(given["device"], "device")
        elif self.field == "hwaddr":
            self.mac = hardware_address(given["hwaddr"], "hwaddr")
        elif self.field == "kernelpath":
            self.directory = _kernel_path(given["kernelpath"])
        else:
            self.directory = pci or on_auxiliary

    def find(self, links: Links) -> Link:
        """In the namespace of `links`; NotFound when it is not there."""
        if not self.is_given:
            raise InvalidArgument("device: one of device, hwaddr, kernelpath, pciBusID and runtimeConfig.deviceID is needed")
        if self.mac:
            found = next((link for link in links.all() if link.mac == self.mac), None)
        elif self.directory:
            found = next(filter(None, (links.find(name) for name in _network_names(self.directory))), None)
        else:
            found = links.find(self.name)
        if found is None:
            raise NotFound(f"{self.field}: no network interface of this node is {self.name or self.mac or self.directory}")
        return found


def _by_runtime(identifier: Any) -> tuple[str, str]:
    """(directory on the PCI bus, directory on the auxiliary bus); one of them is empty."""
    for bus in ("pci", "auxiliary"):
        directory = _bus_directory(bus, identifier, "runtimeConfig.deviceID")
        if os.path.isdir(directory):
            return (directory, "") if bus == "pci" else ("", directory)
    raise NotFound(f"runtimeConfig.deviceID: {identifier!r} is neither on the PCI nor on the auxiliary bus")


def _on_bus(bus: str, identifier: str, field: str) -> str:
    directory = _bus_directory(bus, identifier, field)
    if not os.path.isdir(directory):
        raise NotFound(f"{field}: there is no {identifier!r} on the {bus} bus")
    return directory


def _bus_directory(bus: str, identifier: Any, field: str) -> str:
    if not isinstance(identifier, str) or not _BUS_ADDRESS.fullmatch(identifier):
        raise InvalidArgument(f"{field}: {identifier!r} is not a device's address")
    return f"{_SYS}/bus/{bus}/devices/{identifier}"


def _kernel_path(path: str) -> str:
    if os.path.normpath(path) != path.rstrip("/") or not path.startswith(f"{_SYS}/devices/"):
        raise InvalidArgument(f"kernelpath: {path!r} is not an absolute path below {_SYS}/devices")
    return path


def _driver(directory: str) -> str:
    return os.path.basename(os.path.realpath(f"{directory}/driver"))


def _network_names(directory: str) -> list[str]:
    """Names of the network interfaces of the device at `directory`; those that only stand on another are not below it."""
    try:
        pyudev = importlib.import_module("pyudev")
    except ImportError:  # an executable's start does not have it, a node without udev not its library
        return _walk(directory)
    try:
        context = pyudev.Context()
        parent = pyudev.Devices.from_path(context, os.path.realpath(directory))
        return sorted(device.sys_name for device in context.list_devices(subsystem="net", parent=parent))
    except (OSError, pyudev.DeviceNotFoundError):
        return _walk(directory)


def _walk(directory: str) -> list[str]:
    """Entries of the directory `net` of the device, or of one that its driver made below it (virtio)."""
    for path, directories, _files in os.walk(os.path.realpath(directory)):
        if "net" in directories:
            return sorted(os.listdir(f"{path}/net"))
    return []
