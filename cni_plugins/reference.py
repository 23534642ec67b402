"""Pods that the reference plugins made and ours check, take down and clean up after. Cold."""

from __future__ import annotations

from runtime_core.network.packet_filter import reference_rules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime_core.cni.request import Request


def remove_stale(request: Request) -> None:
    """What the reference plugins made for attachments of this network that are not in cni.dev/valid-attachments; without that
    list, nothing. Before the IPAM plugin is asked: its leases tell whose port maps and admissions are this network's."""
    valid = request.valid_attachments()
    if valid is not None:
        reference_rules().remove_stale(request.network, valid, _leases(request))


def _leases(request: Request) -> list[tuple[str, str, str]]:
    """(container id, interface, address) of those that host-local has given out for this network."""
    if request.section("ipam").get("type") != "host-local":
        return []
    from cni_plugins.ipam.host_local.address_key import key_to_text
    from cni_plugins.ipam.host_local.options import data_directory
    from cni_plugins.ipam.host_local.store import LeaseStore

    store = LeaseStore(data_directory(request), request.network)
    if not store.exists():
        return []
    with store:
        return [(container_id, interface, key_to_text(address)) for address, container_id, interface in store.leases()]
