"""Which packet filter a plugin uses, and which ones may hold rules of an earlier configuration. Cold."""

from __future__ import annotations

from runtime_core.errors import InvalidArgument, NotFound, TrivetError
from runtime_core.network.packet_filter import BACKENDS, choose_entry_point, load_packet_filter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime_core.cni.request import Request


def choose_driver(request: Request, *, needs_iptables: bool) -> Any:
    """The driver that `backend` names; the node's own without it, unless an option is iptables' alone."""
    name: str = request.option("backend", str, "")
    if not name and needs_iptables:
        name = "iptables"
    return load_packet_filter(choose_entry_point(name, "backend", request.packet_filter))


def candidate_drivers(request: Request, *, needs_iptables: bool) -> list[Any]:
    """All that may hold something of this attachment, whatever its configuration says by now: to ask nftables is cheap,
    iptables costs several processes and is asked where it is meant or where nobody can tell."""
    try:
        name = request.option("backend", str, "") or ("iptables" if needs_iptables else "")
        entries = [choose_entry_point(name, "backend", request.packet_filter)]
    except InvalidArgument:
        entries = list(BACKENDS.values())
    return [load_packet_filter(entry) for entry in dict.fromkeys([*entries, BACKENDS["nftables"]])]


def undo_in_candidates(request: Request, *, needs_iptables: bool, undo_in: Any) -> None:
    """`undo_in` every candidate; where none had anything, in iptables too: a configuration may have lost its backend."""
    drivers = candidate_drivers(request, needs_iptables=needs_iptables)
    found = [undo_in(driver) for driver in drivers]
    iptables = load_packet_filter(BACKENDS["iptables"])
    if not any(found) and not any(isinstance(driver, type(iptables)) for driver in drivers):
        undo_in(iptables)


def is_iptables_condition(words: Any) -> bool:
    """Conditions in the words of iptables begin with an option or its negation."""
    return isinstance(words, list) and bool(words) and isinstance(words[0], str) and words[0][:1] in ("-", "!")


def stale_owners(request: Request, owners: set[str]) -> set[str]:
    """Those of this network whose attachment is not in cni.dev/valid-attachments; without that list, none."""
    attachments = request.valid_attachments()
    if attachments is None:
        return set()
    valid = {f"{request.network} {container_id} {interface}" for container_id, interface in attachments}
    return {owner for owner in owners if owner.startswith(f"{request.network} ") and owner not in valid}


def check_reachable(listing: Any) -> Any:
    """STATUS: what it lists; a packet filter that does not answer is a plugin that is not available."""
    try:
        return listing()
    except TrivetError as error:
        raise NotFound(f"the packet filter: {error}") from error
