"""Messages that make links, addresses, routes and VLANs, byte for byte; each row says the line of iproute2 that it stands for."""

from __future__ import annotations

import sys

import pytest

from runtime_core.kernel import netlink
from runtime_core.kernel.netlink import Message
from runtime_core.network import bridge_vlans, link_messages

pytestmark = pytest.mark.skipif(sys.byteorder != "little", reason="the bytes are those of a little-endian machine")


def _bytes(message: Message) -> str:
    return (message.body + netlink.encode(message.attributes)).hex()


def _link(index: int = 0, flags: int = 0) -> str:
    word = flags.to_bytes(4, "little").hex()
    return "00000000" + index.to_bytes(4, "little").hex() + word + word


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        # ip link add d0 type dummy
        (link_messages.link_message("dummy", "d0", []), _link() + "0700030064300000" + "10001280" + "0a00010064756d6d79000000"),
        # ip link add i0 link 7 mtu 1400 type ipvlan mode l3, born in the namespace of descriptor 9
        (
            link_messages.link_message("ipvlan", "i0", link_messages.ipvlan_data("l3"), mtu=1400, parent=7, namespace=9),
            _link() + "0700030069300000" + "1c001280" + "0b0001006970766c616e0000" + "0c000280" + "0600010001000000"
            + "0800040078050000" + "0800050007000000" + "08001c0009000000",
        ),
        # ip link add v0 link 7 type vlan id 42
        (
            link_messages.link_message("vlan", "v0", link_messages.vlan_data(42), parent=7),
            _link() + "0700030076300000" + "1c001280" + "09000100766c616e00000000" + "0c000280" + "060001002a000000" + "0800050007000000",
        ),
        # ip link add m0 link 7 address 02:00:00:00:00:01 type macvlan mode vepa bcqueuelen 500
        (
            link_messages.link_message("macvlan", "m0", link_messages.macvlan_data("vepa", 500), parent=7, mac="02:00:00:00:00:01"),
            _link() + "070003006d300000" + "24001280" + "0c0001006d6163766c616e00" + "14000280" + "0800010002000000" + "08000700f4010000"
            + "0800050007000000" + "0a00010002000000" + "00010000",
        ),
        # ip link set dev 5 name eth0 alias x
        (link_messages.rename_message(5, "eth0", "x"), _link(5) + "090003006574683000000000" + "0500140078000000"),
        # ip link set dev 5 alias ""
        (link_messages.alias_message("", index=5), _link(5) + "04001400"),
        # bridge link set dev 5 hairpin on isolated on
        (
            link_messages.port_message(5, hairpin=True, isolated=True),
            "07" + _link(5)[2:] + "14000c80" + "0500040001000000" + "0500210001000000",
        ),
        # bridge vlan add dev 5 vid 42 pvid untagged
        (bridge_vlans.native_vlan_message(5, 42), "07" + _link(5)[2:] + "0c001a80" + "0800020006002a00"),
        # bridge vlan add dev 5 vid 7; … vid 10-12
        (
            bridge_vlans.trunk_message(5, [12, 7, 10, 11]),
            "07" + _link(5)[2:] + "1c001a80" + "0800020000000700" + "0800020008000a00" + "0800020010000c00",
        ),
        # bridge vlan del dev 5 vid 1
        (bridge_vlans.remove_vlans_message(5, [1]), "07" + _link(5)[2:] + "0c001a80" + "0800020000000100"),
    ],
)  # fmt: skip
def test_links(message: Message, expected: str) -> None:
    """Kinds that a kernel may lack among them."""
    assert _bytes(message) == expected


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        # ip address add 10.0.0.2/24 broadcast + dev 5
        (
            link_messages.address_message(5, "10.0.0.2/24"),
            "02180000" + "05000000" + "080002000a000002" + "080001000a000002" + "080004000a0000ff",
        ),
        # ip address add 10.0.0.2/31 dev 5 noprefixroute: no broadcast there
        (
            link_messages.address_message(5, "10.0.0.2/31", prefix_route=False),
            "021f0000" + "05000000" + "080002000a000002" + "080001000a000002" + "0800080000020000",
        ),
        # ip address add fd00::2/64 dev 5 nodad
        (
            link_messages.address_message(5, "fd00::2/64"),
            "0a400200" + "05000000" + "14000200fd000000000000000000000000000002" + "14000100fd000000000000000000000000000002",
        ),
        # ip address add fd00::2/128 dev 5
        (
            link_messages.address_message(5, "fd00::2/128", follows_accept_dad=True),
            "0a800000" + "05000000" + "14000200fd000000000000000000000000000002" + "14000100fd000000000000000000000000000002",
        ),
        # ip route append default via 10.0.0.1 dev 5
        (link_messages.route_message(5, "0.0.0.0/0", "10.0.0.1"), "02000000fe03000100000000" + "0800040005000000" + "080005000a000001"),
        # ip route append 10.1.0.0/16 dev 5 src 10.0.0.2 metric 42 mtu 1300 advmss 1200 table 1000
        (
            link_messages.route_message(5, "10.1.0.0/16", "", source="10.0.0.2", mtu=1300, advmss=1200, priority=42, table=1000),
            "021000000003fd0100000000" + "0800040005000000" + "080001000a010000" + "080007000a000002" + "080006002a000000"
            + "14000880" + "0800020014050000" + "08000800b0040000" + "08000f00e8030000",
        ),
        # ip route append 10.0.0.2/32 dev 5 scope host
        (
            link_messages.route_message(5, "10.0.0.2/32", "", scope=link_messages.HOST_SCOPE),
            "02200000fe03fe0100000000" + "0800040005000000" + "080001000a000002",
        ),
    ],
)  # fmt: skip
def test_addresses_and_routes(message: Message, expected: str) -> None:
    """Each option that a result may carry."""
    assert _bytes(message) == expected


@pytest.mark.parametrize(
    ("vlans", "expected"),
    [([], []), ([5], [(5, 5)]), ([1, 2, 3], [(1, 3)]), ([4094, 3, 2, 2, 7], [(2, 3), (7, 7), (4094, 4094)])],
)
def test_runs_of_vlans(vlans: list[int], expected: list[tuple[int, int]]) -> None:
    """In order, each once."""
    assert bridge_vlans.ranges(vlans) == expected
