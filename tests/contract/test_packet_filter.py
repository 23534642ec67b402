"""Every installed trivet.packetfilter driver keeps its contract."""

from __future__ import annotations

import pytest

from runtime_core.interfaces.packet_filter import PacketFilter
from runtime_core.registry import installed, load_driver
from runtime_core.testing.packet_filter_contract import PacketFilterContract
from runtime_core.testing.tools import require_program


@pytest.mark.parametrize("name", [driver.name for driver in installed("packetfilter")])
class TestPacketFilters(PacketFilterContract):
    @pytest.fixture
    def packet_filter(self, name: str) -> PacketFilter:
        if name == "iptables":
            require_program("iptables", "iptables")
        return load_driver("packetfilter", name)()  # type: ignore[no-any-return]
