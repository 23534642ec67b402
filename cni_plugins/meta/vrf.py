"""CNI plugin vrf: the container's interface becomes a port of a VRF, which is made for the first and goes with the last.

Options: vrfname, table.
"""

from __future__ import annotations

import struct
from contextlib import ExitStack

from cni_plugins.chained import container
from cni_plugins.options.link_options import interface_name, is_interface_name, number
from runtime_core.errors import FailedPrecondition, InvalidArgument, NotFound
from runtime_core.network import rules
from runtime_core.network.kernel_errors import describe_error
from runtime_core.network.link_messages import address_message, link_message
from runtime_core.network.sysctl import write_sysctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cni_plugins.chained.container import Container
    from runtime_core.cni.request import Request
    from runtime_core.kernel.netlink import Message
    from runtime_core.network.links import Link, Links
    from runtime_core.network.rules import Route

_KIND, _TABLE = "vrf", 1  # IFLA_VRF_TABLE
_RESERVED = {253, 254, 255}
_LAST_TABLE = (1 << 32) - 1
_SETTLE_SECONDS = 10.0


class Options:
    """The configuration, checked."""

    __slots__ = ("name", "table")

    def __init__(self, request: Request) -> None:
        name = _name(request)
        if not isinstance(name, str) or not name:
            raise InvalidArgument(f"vrfname: {name!r} is not the name of a VRF")
        self.name = interface_name(name, "vrfname")
        if self.name == request.interface:
            raise InvalidArgument(f"vrfname: {name} is the container's interface itself")
        self.table = number(request.config, "table", "table", 0, _LAST_TABLE) or 0
        if self.table in _RESERVED:
            raise InvalidArgument(f"table: {self.table} is one of the kernel's own")


def add(request: Request) -> dict[str, Any]:
    options = Options(request)
    previous = container.previous_result(request)
    with container.enter_container(request) as found, ExitStack() as undo:
        link = container.find_interface(request, found)
        if link.master:
            master = found.links.find_by_index(link.master)
            raise FailedPrecondition(
                f"{link.name} of the container has the master {master.name if master else link.master} already"
            )
        vrf = _ensure(found.links, options, undo)
        _enslave(found, link, vrf, undo)
        undo.pop_all()
    return previous


def delete(request: Request) -> None:
    """The interface leaves the VRF, and the last one takes it along; whatever is missing is well."""
    name = _name(request)
    if not isinstance(name, str) or not is_interface_name(name):
        return
    with container.enter_container_if_present(request) as found:
        vrf = found.links.find(name) if found is not None else None
        if found is None or vrf is None or vrf.kind != _KIND:
            return
        if found.link is not None and found.link.master == vrf.index:
            found.links.set_master(found.link.index, 0)
        if not any(link.master == vrf.index for link in found.links.all()):
            found.links.remove_by_index(vrf.index)


def check(request: Request) -> None:
    options = Options(request)
    container.previous_result(request)
    with container.enter_container(request) as found:
        link = container.find_interface(request, found)
        vrf = found.links.find(options.name)
    if vrf is None or not vrf.is_up:
        raise NotFound(f"VRF {options.name} of the container is missing or down")
    _check_vrf(vrf, options)
    if link.master != vrf.index:
        raise FailedPrecondition(f"{link.name} of the container is not in VRF {options.name}")


def gc(request: Request) -> None:
    """Nothing is kept outside of the container."""


def status(request: Request) -> None:
    """NotFound where the kernel has no VRFs."""
    Options(request)
    with container.scratch_namespace() as sock:
        try:
            sock.request(vrf_message("vrf", 1))
        except OSError as error:
            raise NotFound(f"the kernel has no links of kind vrf: {error.strerror}") from error


def vrf_message(name: str, table: int) -> Message:
    return link_message(_KIND, name, [(_TABLE, table)], up=True)


def table_of(vrf: Link) -> int:
    return int(struct.unpack("=I", vrf.data.get(_TABLE, bytes(4)))[0])


def _name(request: Request) -> Any:
    """The reference set reads either spelling."""
    return request.config.get("vrfname", request.config.get("vrfName"))


def _ensure(links: Links, options: Options, undo: ExitStack) -> Link:
    vrf = links.find(options.name)
    if vrf is not None:
        _check_vrf(vrf, options)
        return vrf
    table = options.table or _free_table(links)
    try:
        vrf = links.create(options.name, vrf_message(options.name, table))
    except OSError as error:
        raise describe_error(error, f"vrfname: making VRF {options.name} with table {table}") from error
    undo.callback(links.remove_by_index, vrf.index)
    return vrf


def _check_vrf(vrf: Link, options: Options) -> None:
    if vrf.kind != _KIND:
        raise FailedPrecondition(f"vrfname: {vrf.name} of the container is a {vrf.kind or 'real device'}, not a VRF")
    if options.table and table_of(vrf) != options.table:
        raise FailedPrecondition(f"table: VRF {vrf.name} has table {table_of(vrf)} already, not {options.table}")


def _free_table(links: Links) -> int:
    taken = {table_of(link) for link in links.all() if link.kind == _KIND} | _RESERVED
    taken |= {rule.table for rule in rules.rules(links.socket)} | {route.table for route in rules.routes(links.socket)}
    return rules.free_table(taken, 1)


def _enslave(found: Container, link: Link, vrf: Link, undo: ExitStack) -> None:
    """The kernel takes the link down and up again: what it forgets then is put into the VRF's table."""
    links, table = found.links, table_of(vrf)
    before = links.addresses(link.index)
    kept = [route for route in rules.routes(links.socket) if _is_lost(route, link)]
    write_sysctl(f"ipv6/conf/{link.name}/keep_addr_on_down", "1")
    undo.callback(_restore, links, link, before, kept)
    try:
        links.set_master(link.index, vrf.index)
        _restore_addresses(links, link, before)
        links.send(*[route.replace_message(table) for route in kept])
    except OSError as error:
        raise describe_error(error, f"moving {link.name} of the container into VRF {vrf.name}") from error


def _is_lost(route: Route, link: Link) -> bool:
    """Made by somebody, and not by the kernel for an address."""
    return route.index == link.index and route.table == rules.MAIN_TABLE and route.is_unicast and not route.is_of_kernel


def _restore_addresses(links: Links, link: Link, before: list[str]) -> None:
    from runtime_core.network.duplicate_detection import AddressEvents  # here: few containers have a VRF

    events = AddressEvents()
    try:
        present = links.addresses(link.index)
        lost = [address for address in before if address not in present and not address.startswith("fe80:")]
        links.send(*[address_message(link.index, address) for address in lost])
        if link.is_up and any(":" in address for address in before):
            events.wait_for_duplicate_detection(links, link.index, _SETTLE_SECONDS)
    finally:
        events.close()


def _restore(links: Links, link: Link, before: list[str], kept: list[Route]) -> None:
    links.set_master(link.index, 0)
    _restore_addresses(links, link, before)
    links.send(*[route.replace_message(rules.MAIN_TABLE) for route in kept])
