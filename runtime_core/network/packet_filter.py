"""The packet filter by its entry point: for cold code, which cannot ask stevedore. Cold."""

from __future__ import annotations

import importlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: the entry point trivet.packetfilter nftables
DEFAULT = "plugins.packet_filters.nftables:NftablesFilter"


def packet_filter(entry: str = DEFAULT) -> Any:
    """A new driver object of "module:attribute"."""
    module, _, attribute = entry.partition(":")
    return getattr(importlib.import_module(module), attribute)()
