"""CNI plugin host-device: a network device of the node is the container's, and comes back under its old name.

Options: device, hwaddr, kernelpath, pciBusID, runtimeConfig.deviceID (PCI or auxiliary bus).
"""

from __future__ import annotations

import os

from cni_plugins.links.container_check import check_addresses, check_container
from cni_plugins.links.container_link import (
    AttachmentSetup,
    add_result,
    allocate_addresses,
    configure,
    delegate_ipam,
    describe_interface,
    run_all,
)
from cni_plugins.links.host_devices import Device
from cni_plugins.options.link_options import is_interface_name
from runtime_core.errors import AlreadyExists, NotFound, from_oserror
from runtime_core.kernel import netlink
from runtime_core.network.link_messages import move_message, rename_message
from runtime_core.network.links import Links
from runtime_core.network.namespace import in_namespace, is_own, open_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime_core.cni.request import Request
    from runtime_core.network.links import Link


def add(request: Request) -> dict[str, Any]:
    device = Device(request)
    with AttachmentSetup(request) as setup:
        if device.is_userspace:  # a program will have it, not the kernel: there is no link
            interfaces = [{"name": request.interface, "sandbox": request.netns}]
            return add_result(request, interfaces, allocate_addresses(request, setup.undo))
        link = _move_in(request, setup, device.find(setup.host))
        result = add_result(request, [describe_interface(link, request.netns)], allocate_addresses(request, setup.undo))
        configure(setup, link, result)
    return result


def delete(request: Request) -> None:
    """Undo ADD. Idempotent; anything may be missing, also the namespace and the device."""
    run_all(lambda: delegate_ipam(request, "DEL"), lambda: _return_device(request))


def check(request: Request) -> None:
    device = Device(request)
    previous = check_addresses(request)
    if not device.is_userspace:
        check_container(request, previous, "")


def gc(request: Request) -> None:
    """Addresses: the kernel takes a device home when its namespace goes."""
    delegate_ipam(request, "GC")


def status(request: Request) -> None:
    device = Device(request)
    if device.is_given and not device.is_userspace:  # a runtime may name it with ADD only
        with netlink.Socket() as sock:
            device.find(Links(sock))
    delegate_ipam(request, "STATUS")


def _move_in(request: Request, setup: AttachmentSetup, link: Link) -> Link:
    """The old name is the alias from now on, which is where DEL finds it."""
    name = request.interface
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    setup.undo.callback(os.close, home)
    setup.undo.callback(_undo_move, setup, link, name, home)
    try:
        setup.host.send(move_message(link.index, setup.namespace, name, link.name))
        return setup.container.create(name)
    except OSError as error:
        raise from_oserror(error, f"moving {link.name} into the container") from error


def _undo_move(setup: AttachmentSetup, link: Link, name: str, home: int) -> None:
    """A move that the kernel refused half-way leaves the device inside under either name."""
    for candidate in (name, link.name):
        found = setup.container.find(candidate)
        if found is not None and found.mac == link.mac:
            setup.container.send(move_message(found.index, home, link.name, ""))
            break
    returned = setup.host.find(link.name)
    if returned is not None and link.is_up and not returned.is_up:
        setup.host.set_up(returned.index)


def _return_device(request: Request) -> None:
    try:
        namespace = open_namespace(request.netns) if request.netns else -1
    except NotFound:
        namespace = -1
    try:
        with netlink.Socket() as sock:
            if namespace >= 0 and not is_own(namespace):
                _move_out(request, Links(sock), namespace)
            _rename_returned(request, Links(sock))
    finally:
        if namespace >= 0:
            os.close(namespace)


def _move_out(request: Request, host: Links, namespace: int) -> None:
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with in_namespace(namespace), netlink.Socket() as sock:
            inside = Links(sock)
            link = inside.find(request.interface)
            if link is None or not is_interface_name(link.alias):
                return
            if host.find(link.alias) is not None:
                raise AlreadyExists(f"device: the node has another {link.alias} by now; {link.name} stays in the container")
            inside.set_down(link.index)
            inside.send(move_message(link.index, home, link.alias, ""))
    except OSError as error:
        raise from_oserror(error, f"moving {request.interface} out of the container") from error
    finally:
        os.close(home)


def _rename_returned(request: Request, host: Links) -> None:
    """A device that came home because its namespace went has its name of there, or one that the kernel chose."""
    if request.previous is None:
        return
    macs = {interface.get("mac") for interface in request.previous["interfaces"] if interface.get("sandbox")} - {None, ""}
    for link in host.all():
        if link.mac in macs and link.alias != link.name and is_interface_name(link.alias) and host.find(link.alias) is None:
            try:
                host.set_down(link.index)
                host.send(rename_message(link.index, link.alias, ""))
            except OSError as error:
                raise from_oserror(error, f"giving {link.name} its name {link.alias} back") from error
