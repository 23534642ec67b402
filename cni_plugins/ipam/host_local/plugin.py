"""CNI plugin host-local: addresses from ranges, kept on this host. Cold."""

from __future__ import annotations

import ipaddress

from cni_plugins.ipam.host_local.address_key import address_to_key, key_to_text
from cni_plugins.ipam.host_local.options import Options, data_directory
from cni_plugins.ipam.host_local.ranges import search_order
from cni_plugins.ipam.host_local.store import LeaseStore
from cni_plugins.options.ipam_options import NotReady
from runtime_core.errors import AlreadyExists, DataLoss, FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cni_plugins.ipam.host_local.ranges import Range
    from runtime_core.cni.request import Request


def add(request: Request) -> dict[str, Any]:
    """One address of each range set, all or none.

    An attachment that has addresses already is refused, as the reference plugin does: they may be those of a living
    container, and a caller that went on to fail would release them. After a crash, DEL or GC frees them.
    """
    options = Options(request)
    ips = []
    with LeaseStore(options.data_directory, request.network) as store:
        store.check()
        _check_not_allocated(store, options, request)
        wanted = list(options.wanted)
        for number in range(len(options.groups)):
            address_range, address = _choose(store, request, options, number, wanted)
            if not store.insert(address, request.container_id, request.interface):
                raise AlreadyExists(f"ips: {key_to_text(address)} is taken")
            store.set_last_allocated(number, address)
            ips.append(
                {"address": f"{key_to_text(address)}/{address_range.network.prefixlen}", "gateway": address_range.gateway_text}
            )
        if wanted:
            raise InvalidArgument(f"ips: {', '.join(map(key_to_text, wanted))}: each range set gives one address only")
    return {"ips": ips, "routes": options.routes, "dns": options.dns}


def delete(request: Request) -> None:
    """Whatever the configuration has become: only name and dataDir are read.

    Leases that cannot be read hold no container: ADD refuses as long as they are there, and they go with their file."""
    store = LeaseStore(data_directory(request), request.network)
    if not store.exists():
        return
    try:
        with store:
            for address in store.owned(request.container_id, request.interface):
                store.delete(address)
    except (DataLoss, FailedPrecondition):
        return


def check(request: Request) -> None:
    """The addresses of prevResult that are in a range are this attachment's, and there is at least one."""
    options = Options(request)
    with LeaseStore(options.data_directory, request.network) as store:
        owned = store.owned(request.container_id, request.interface)
    listed = [ip["address"].partition("/")[0] for ip in (request.previous or {}).get("ips") or []]
    for text in listed:
        key = address_to_key(ipaddress.ip_address(text))
        if key not in owned and any(key in address_range for range_set in options.groups for address_range in range_set):
            raise NotFound(f"{text} is not reserved for container {request.container_id}")
    if not owned:
        raise NotFound(f"no address is reserved for {request.interface} of container {request.container_id}")


def gc(request: Request) -> None:
    """Releases what is not in cni.dev/valid-attachments."""
    valid = request.valid_attachments()
    store = LeaseStore(data_directory(request), request.network)
    if valid is None or not store.exists():
        return
    containers = {container_id for container_id, _interface in valid}
    with store:
        for address, container_id, interface in store.leases():
            is_valid = (container_id, interface) in valid if interface else container_id in containers
            if not is_valid:
                store.delete(address)


def status(request: Request) -> None:
    """NotReady without a range, and where a range set has no free address; DataLoss where the leases cannot be read."""
    ipam = request.section("ipam")
    if not (ipam.get("subnet") or ipam.get("ranges") or request.section("runtimeConfig").get("ipRanges")):
        raise NotReady("ipam.ranges: no range is given")
    options = Options(request)
    store = LeaseStore(options.data_directory, request.network)
    if not store.exists():
        return
    with store:
        store.check()
        for number, range_set in enumerate(options.groups):
            if _free(store, options, number, range_set) is None:
                raise NotReady(_exhausted(request, range_set))


def _check_not_allocated(store: LeaseStore, options: Options, request: Request) -> None:
    for address in store.owned(request.container_id, request.interface):
        if any(address in address_range for range_set in options.groups for address_range in range_set):
            raise AlreadyExists(
                f"{request.interface} of container {request.container_id} has {key_to_text(address)} already; DEL releases it"
            )


def _choose(store: LeaseStore, request: Request, options: Options, number: int, wanted: list[bytes]) -> tuple[Range, bytes]:
    """The wanted address of this set, taken out of `wanted`, or the next free one."""
    range_set = options.groups[number]
    for address in wanted:
        for address_range in range_set:
            if address in address_range:
                wanted.remove(address)
                return address_range, address
    free = _free(store, options, number, range_set)
    if free is None:
        raise ResourceExhausted(_exhausted(request, range_set))
    return free


def _free(store: LeaseStore, options: Options, number: int, range_set: list[Range]) -> tuple[Range, bytes] | None:
    for address_range, first, last in search_order(range_set, store.last_allocated(number)):
        address = store.first_free(first, last, options.gateways)
        if address is not None:
            return address_range, address
    return None


def _exhausted(request: Request, range_set: list[Range]) -> str:
    """The set by its place in the configuration, with all that it had to give."""
    spans_of_all = ", ".join(
        f"{key_to_text(address_range.first)} to {key_to_text(address_range.last)}" for address_range in range_set
    )
    networks = ", ".join(str(address_range.network) for address_range in range_set)
    place = range_set[0].field.rpartition("[")[0] or "ipam.ranges[0]"  # the old form has one
    return f"{place}: no address of {networks} is free in network {request.network}: all from {spans_of_all} are taken"
