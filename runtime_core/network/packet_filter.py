"""The packet filter by its entry point: for cold code, which cannot ask stevedore. Cold."""

from __future__ import annotations

from runtime_core.errors import InvalidArgument
from runtime_core.kernel import entry_point

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: `backend` or `ipMasqBackend` of a plugin's configuration → entry point of trivet.packetfilter
BACKENDS = {
    "nftables": "plugins.packet_filters.nftables:NftablesFilter",
    "iptables": "plugins.packet_filters.iptables:IptablesFilter",
}
DEFAULT = BACKENDS["nftables"]
#: what knows the rules of the reference plugins
REFERENCE = "plugins.packet_filters.reference:ReferenceRules"


def load_packet_filter(entry: str) -> Any:
    """A new driver object of "module:attribute", of `DEFAULT` when that is empty."""
    return entry_point.load(entry or DEFAULT)()


def reference_rules() -> Any:
    """A new object that knows what the reference plugins made for pods of this node."""
    return entry_point.load(REFERENCE)()


def choose_entry_point(backend: str, field: str, entry: str) -> str:
    """The entry point that a plugin's configuration asks for, `entry` (the node's own) where it asks for none."""
    if not backend:
        return entry or DEFAULT
    if backend not in BACKENDS:
        raise InvalidArgument(f"{field}: {backend!r} is not one of {', '.join(sorted(BACKENDS))}")
    return BACKENDS[backend]
