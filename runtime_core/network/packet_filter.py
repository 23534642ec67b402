"""The packet filter by its entry point: for cold code, which cannot ask stevedore. Cold."""

from __future__ import annotations

from runtime_core.kernel import entry_point

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: the entry point trivet.packetfilter nftables
DEFAULT = "plugins.packet_filters.nftables:NftablesFilter"


def packet_filter(entry: str) -> Any:
    """A new driver object of "module:attribute", of `DEFAULT` when that is empty."""
    return entry_point.load(entry or DEFAULT)()
