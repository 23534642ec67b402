"""CNI plugin firewall: the node forwards what the container sends and the answers to it, and keeps bridges apart.

Options: backend (nftables, iptables, firewalld; without it firewalld where it runs, then the node's own packet filter, but
iptables where its FORWARD drops what that one admits), firewalldZone, iptablesAdminChainName (which chooses iptables),
ingressPolicy (open, same-bridge, isolated).

firewalld knows no owners: whose an address is stands in the admissions of nftables, which also keep the bridges apart.
"""

from __future__ import annotations

from contextlib import ExitStack

from cni_plugins import reference
from cni_plugins.chained import firewall_options, firewalld, packet_filters
from cni_plugins.chained.container import previous_result
from runtime_core.errors import FailedPrecondition, InvalidArgument, NotFound
from runtime_core.network.packet_filter import BACKENDS, load_packet_filter, reference_rules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime_core.cni.request import Request
    from runtime_core.interfaces.packet_filter import AdmissionOptions


class NotForwarded(FailedPrecondition):
    """STATUS: what the containers send is dropped by somebody else (specification 1.1, section 5)."""

    code = 51


def add(request: Request) -> dict[str, Any]:
    options = firewall_options.Options(request)
    addresses, admission = firewall_options.container_addresses(request), options.admission(request)
    if options.is_by_firewalld:
        firewalld.check_running()
    if addresses:
        driver = _driver(request, options, addresses)
        with ExitStack() as undo:
            driver.admit(addresses, admission, request.owner)
            undo.callback(driver.unadmit, request.owner)
            if options.is_by_firewalld:
                firewalld.add_sources(options.zone, addresses)
            undo.pop_all()
    return previous_result(request)


def delete(request: Request) -> None:
    """By what is recorded, whatever prevResult and configuration have become."""
    if request.config.get("backend") == "firewalld":
        _remove(request, load_packet_filter(BACKENDS["nftables"]), request.owner)
    else:
        needs_iptables = bool(request.config.get("iptablesAdminChainName"))
        packet_filters.undo_in_candidates(
            request, needs_iptables=needs_iptables, undo_in=lambda driver: _remove(request, driver, request.owner)
        )
    reference_rules().unadmit(request.owner, firewall_options.addresses_to_remove(request))


def check(request: Request) -> None:
    """Where the configuration leaves the choice to the node, any driver will do that admits what nobody drops."""
    options = firewall_options.Options(request)
    addresses, admission = firewall_options.container_addresses(request), options.admission(request)
    if not addresses:
        return
    problems = []
    for driver in _possible(request, options, addresses):
        problems.append(_problem(request, options, driver, addresses, admission))
        if not problems[-1]:
            return
    raise FailedPrecondition(problems[0])


def gc(request: Request) -> None:
    """Take away the admissions of whoever is not in cni.dev/valid-attachments; mend what is known to be broken."""
    reference.remove_stale(request)
    for driver in _candidates(request):
        try:
            owners = {owner for _address, owner in driver.admitted()}
        except NotFound:  # it is not installed: nothing of it is there
            continue
        for owner in packet_filters.stale_owners(request, owners):
            _remove(request, driver, owner)
        driver.repair()


def status(request: Request) -> None:
    options = firewall_options.Options(request)
    if options.is_by_firewalld:
        firewalld.check_running()
    driver = _driver(request, options, [])
    of_each_family = {":" in address: address for address, _owner in packet_filters.check_reachable(driver.admitted)}
    refusals = driver.refusals(list(of_each_family.values()), "")
    if refusals:
        raise NotForwarded(f"what containers send is dropped by {', '.join(refusals)}")


def _driver(request: Request, options: firewall_options.Options, addresses: list[str]) -> Any:
    return _possible(request, options, addresses)[0]


def _possible(request: Request, options: firewall_options.Options, addresses: list[str]) -> list[Any]:
    """The drivers that may have admitted the addresses: the one that is configured, or else all, the one to be taken first."""
    if options.is_by_firewalld:
        return [load_packet_filter(BACKENDS["nftables"])]
    own = packet_filters.choose_driver(request, needs_iptables=bool(options.admin_chain))
    if options.is_chosen:
        return [own]
    iptables = load_packet_filter(BACKENDS["iptables"])
    if isinstance(own, type(iptables)):
        return [own]
    is_overruled = own.is_overruled(addresses, firewall_options.host_interface(request))
    return [iptables, own] if is_overruled else [own, iptables]


def _problem(
    request: Request, options: firewall_options.Options, driver: Any, addresses: list[str], admission: AdmissionOptions
) -> str:
    """What keeps the addresses from being forwarded; "" where they are."""
    try:
        lacking = driver.missing_admission(addresses, admission, request.owner)
    except NotFound as error:  # it is not installed, and has admitted nothing
        return str(error)
    alone = {address.partition("/")[0] for address in addresses}
    if lacking and reference_rules().admitted(list(alone)) == alone:
        lacking = []
    if options.is_by_firewalld:
        firewalld.check_running()
        lacking += [f"{address} in zone {options.zone}" for address in firewalld.missing_sources(options.zone, addresses)]
    if lacking:
        return f"of the admission is gone: {', '.join(lacking)}"
    refusals = driver.refusals(addresses, firewall_options.host_interface(request))
    return f"what {', '.join(addresses)} send is dropped by {', '.join(refusals)}" if refusals else ""


def _candidates(request: Request) -> list[Any]:
    if request.config.get("backend") == "firewalld":
        return [load_packet_filter(BACKENDS["nftables"])]
    found = packet_filters.candidate_drivers(request, needs_iptables=bool(request.config.get("iptablesAdminChainName")))
    iptables = load_packet_filter(BACKENDS["iptables"])
    is_left_to_the_node = not request.config.get("backend") and not any(isinstance(one, type(iptables)) for one in found)
    return [*found, iptables] if is_left_to_the_node else found


def _remove(request: Request, driver: Any, owner: str) -> bool:
    """Whether there was anything."""
    if request.config.get("backend") in (None, "", "firewalld") and firewalld.is_running():
        attachment = owner.split(" ")[1:]
        owned = [address for address, whose in driver.admitted() if whose.split(" ")[1:] == attachment]
        firewalld.remove_sources(_zone(request), owned)
    return bool(driver.unadmit(owner))


def _zone(request: Request) -> str:
    """Of what was made; a name that is none by now had no sources."""
    try:
        return firewall_options.Options(request).zone
    except InvalidArgument:
        return firewall_options.DEFAULT_ZONE
