"""CNI plugin host-local: addresses from ranges, kept on this host."""

from __future__ import annotations

import ipaddress
import os

from cni_plugins.ipam.host_local.allocator import Range, candidates, range_sets
from cni_plugins.ipam.host_local.disk_store import DiskStore
from runtime_core.errors import AlreadyExists, InvalidArgument, NotFound, ResourceExhausted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime_core.cni.request import Request

#: so many addresses are tried one by one before the whole directory is read
_PATIENCE = 16


def add(request: Request) -> dict[str, Any]:
    ipam = request.section("ipam")
    groups = range_sets(ipam, _runtime(request).get("ipRanges"))
    wanted = _wanted(request)
    ips = []
    with _store(request) as store:
        for number, group in enumerate(groups):
            chosen = _requested(group, wanted)
            one, address = _take(store, chosen, request, number) if chosen else _allocate(store, group, request, number)
            ips.append({"address": f"{one.text(address)}/{one.network.prefixlen}", "gateway": one.text(one.gateway)})
        if wanted:
            _release(store, request)
            raise InvalidArgument(f"ips: {', '.join(sorted(wanted))} in no range of this network")
    return {"ips": ips, "routes": ipam.get("routes") or [], "dns": _dns(ipam.get("resolvConf"))}


def delete(request: Request) -> None:
    listed = [ip["address"].partition("/")[0] for ip in (request.previous or {}).get("ips") or []]
    with _store(request) as store:
        ours = [address for address in listed if store.owner(address) == (request.container_id, request.interface)]
        for address in ours:
            store.release(address)
        if not listed or ours != listed:  # an earlier plugin's result, or a retry: look at every reservation
            _release(store, request)


def check(request: Request) -> None:
    with _store(request) as store:
        for ip in (request.previous or {}).get("ips") or []:
            address = ip["address"].partition("/")[0]
            if _is_ours(request, address) and store.owner(address)[0] != request.container_id:
                raise NotFound(f"{address} is not reserved for container {request.container_id}")


def gc(request: Request) -> None:
    valid = request.valid_attachments()
    if valid is None:
        return
    with _store(request) as store:
        for address, container_id, interface in store.reservations():
            if (container_id, interface) not in valid:
                store.release(address)


def status(request: Request) -> None:
    range_sets(request.section("ipam"))


def _store(request: Request) -> DiskStore:
    return DiskStore(request.section("ipam").get("dataDir", ""), request.network)


def _allocate(store: DiskStore, group: list[Range], request: Request, number: int) -> tuple[Range, int]:
    taken: set[str] | None = None
    for tried, (one, address) in enumerate(candidates(group, store.last(number))):
        text = one.text(address)
        if tried == _PATIENCE:
            taken = store.taken()
        if taken is not None and text in taken and store.owner(text)[0]:
            continue
        if store.reserve(text, request.container_id, request.interface, number):
            return one, address
    raise ResourceExhausted(f"ipam.ranges[{number}]: no address of {request.network} is free")


def _take(store: DiskStore, chosen: tuple[Range, int], request: Request, number: int) -> tuple[Range, int]:
    text = chosen[0].text(chosen[1])
    if not store.reserve(text, request.container_id, request.interface, number):
        raise AlreadyExists(f"ips: {text} is taken")
    return chosen


def _requested(group: list[Range], wanted: set[str]) -> tuple[Range, int] | None:
    for text in sorted(wanted):
        address = ipaddress.ip_address(text)
        for one in group:
            if one.network.version == address.version and int(address) in one:
                if int(address) == one.gateway:
                    raise InvalidArgument(f"ips: {text} is the gateway")
                wanted.discard(text)
                return one, int(address)
    return None


def _wanted(request: Request) -> set[str]:
    """Addresses asked for by the capability "ips", args.cni.ips or CNI_ARGS IP."""
    listed = list(_runtime(request).get("ips") or [])
    listed += (request.section("args").get("cni") or {}).get("ips") or []
    listed += filter(None, request.args.get("IP", "").split(","))
    try:
        return {str(ipaddress.ip_interface(text).ip) for text in listed}
    except ValueError as error:
        raise InvalidArgument(f"ips: {error}") from None


def _runtime(request: Request) -> dict[str, Any]:
    return request.section("runtimeConfig")


def _release(store: DiskStore, request: Request) -> None:
    for address, container_id, interface in store.reservations():
        if (container_id, interface) == (request.container_id, request.interface):
            store.release(address)


def _is_ours(request: Request, address: str) -> bool:
    number = int(ipaddress.ip_address(address))
    return any(number in one for group in range_sets(request.section("ipam")) for one in group)


def _dns(path: str | None) -> dict[str, Any]:
    """ipam.resolvConf as a result's dns."""
    if not path:
        return {}
    if not os.path.isfile(path):
        raise InvalidArgument(f"ipam.resolvConf: {path!r} does not exist")
    found: dict[str, Any] = {}
    with open(path) as file:
        for line in file:
            words = line.split()
            if len(words) < 2:
                continue
            if words[0] == "nameserver":
                found.setdefault("nameservers", []).append(words[1])
            elif words[0] == "domain":
                found["domain"] = words[1]
            elif words[0] == "search":
                found["search"] = words[1:]
            elif words[0] == "options":
                found.setdefault("options", []).extend(words[1:])
    return found
