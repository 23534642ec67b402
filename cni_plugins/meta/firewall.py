"""CNI plugin firewall: the node forwards what the container sends and the answers to it, and keeps bridges apart.

Options: backend (nftables, iptables, firewalld; without it firewalld where it runs, then the node's own packet filter),
firewalldZone, iptablesAdminChainName (which chooses iptables), ingressPolicy (open, same-bridge, isolated).

firewalld knows no owners: whose an address is stands in the admissions of nftables, which also keep the bridges apart.
"""

from __future__ import annotations

from contextlib import ExitStack

from cni_plugins.meta import backends, firewall_conf, firewalld
from cni_plugins.meta.chained import previous_result
from runtime_core.errors import FailedPrecondition, InvalidArgument
from runtime_core.network.packet_filter import BACKENDS, packet_filter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime_core.cni.request import Request


def add(request: Request) -> dict[str, Any]:
    options = firewall_conf.Options(request)
    addresses, admission = firewall_conf.addresses(request), options.admission(request)
    if options.is_by_firewalld:
        firewalld.must_run()
    if addresses:
        driver = _driver(request, options)
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
        _remove(request, packet_filter(BACKENDS["nftables"]), request.owner)
    else:
        needs_iptables = bool(request.config.get("iptablesAdminChainName"))
        backends.undo(request, needs_iptables=needs_iptables, undo_in=lambda driver: _remove(request, driver, request.owner))


def check(request: Request) -> None:
    options = firewall_conf.Options(request)
    addresses, admission = firewall_conf.addresses(request), options.admission(request)
    if not addresses:
        return
    lacking = _driver(request, options).lacking_admission(addresses, admission, request.owner)
    if options.is_by_firewalld:
        firewalld.must_run()
        lacking += [f"{address} in zone {options.zone}" for address in firewalld.lacking_sources(options.zone, addresses)]
    if lacking:
        raise FailedPrecondition(f"of the admission is gone: {', '.join(lacking)}")


def gc(request: Request) -> None:
    """Take away the admissions of whoever is not in cni.dev/valid-attachments; mend what is known to be broken."""
    for driver in _candidates(request):
        owners = {owner for _address, owner in driver.admitted()}
        for owner in backends.stale_owners(request, owners):
            _remove(request, driver, owner)
        driver.mend()


def status(request: Request) -> None:
    options = firewall_conf.Options(request)
    if options.is_by_firewalld:
        firewalld.must_run()
    backends.must_answer(_driver(request, options).admitted)


def _driver(request: Request, options: firewall_conf.Options) -> Any:
    if options.is_by_firewalld:
        return packet_filter(BACKENDS["nftables"])
    return backends.backend(request, needs_iptables=bool(options.admin_chain))


def _candidates(request: Request) -> list[Any]:
    if request.config.get("backend") == "firewalld":
        return [packet_filter(BACKENDS["nftables"])]
    return backends.candidates(request, needs_iptables=bool(request.config.get("iptablesAdminChainName")))


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
        return firewall_conf.Options(request).zone
    except InvalidArgument:
        return firewall_conf.DEFAULT_ZONE
