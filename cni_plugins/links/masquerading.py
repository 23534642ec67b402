"""ipMasq: packets that leave the container's network get the node's address. Cold."""

from __future__ import annotations

from runtime_core.errors import FailedPrecondition
from runtime_core.network.packet_filter import BACKENDS, choose_entry_point, load_packet_filter, reference_rules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime_core.cni.request import Request

_FIELD = "ipMasqBackend"


def check_options(request: Request) -> bool:
    """Whether it is asked for."""
    choose_entry_point(request.option(_FIELD, str, ""), _FIELD, request.packet_filter)
    return bool(request.option("ipMasq", bool, False))


def masquerade(request: Request, ips: list[dict[str, Any]]) -> None:
    """Masquerade the addresses `ips` of this attachment."""
    _filter(request).masquerade([ip["address"] for ip in ips], request.owner)


def unmasquerade(request: Request) -> None:
    """Of the attachment; what prevResult lists is looked at, without it everything."""
    if request.config.get("ipMasq"):
        addresses = [ip["address"] for ip in (request.previous or {}).get("ips") or []]
        _filter(request).unmasquerade(request.owner, addresses)
        reference_rules().unmasquerade(request.owner)


def check(request: Request, previous: dict[str, Any]) -> None:
    """FailedPrecondition when the masquerading of an address of `previous` is gone."""
    listed = {address for address, owner in _filter(request).masqueraded() if owner == request.owner}
    lacking = {ip["address"].partition("/")[0] for ip in previous["ips"]} - listed
    if lacking and lacking - reference_rules().masqueraded(request.owner):
        raise FailedPrecondition(f"the masquerading of {', '.join(sorted(lacking))} is gone")


def remove_stale(request: Request) -> None:
    """Of this network's attachments that are not in cni.dev/valid-attachments; without that list, none. What somebody else
    has broken of the others' is mended."""
    attachments = request.valid_attachments()
    if attachments is None or not request.config.get("ipMasq"):
        return
    valid = {f"{request.network} {container_id} {interface}" for container_id, interface in attachments}
    driver = _filter(request)
    driver.repair()
    for address, owner in driver.masqueraded():
        if owner.startswith(f"{request.network} ") and owner not in valid:
            driver.unmasquerade(owner, [address])


def status(request: Request) -> None:
    """An error where the node lacks what it needs."""
    _filter(request).masqueraded()


def _filter(request: Request) -> Any:
    """DEL takes down by the node's own what it cannot read."""
    backend = request.config.get(_FIELD)
    return load_packet_filter(BACKENDS.get(backend, request.packet_filter) if isinstance(backend, str) else request.packet_filter)
