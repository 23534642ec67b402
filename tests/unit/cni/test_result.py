"""Results of every CNI version, both ways."""

from __future__ import annotations

import pytest

from runtime_core.cni.result import VERSIONS, export, read
from runtime_core.errors import InvalidArgument

_RESULT = {
    "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/ns", "mtu": 1500}],
    "ips": [{"address": "10.0.0.2/24", "gateway": "10.0.0.1", "interface": 0}],
    "routes": [{"dst": "0.0.0.0/0", "mtu": 1400}],
    "dns": {"nameservers": ["10.0.0.1"]},
}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_address_survives_every_version(version: str) -> None:
    """Written in a version and read again, address, gateway and DNS are the same."""
    back = read(export(_RESULT, version))
    assert back["ips"][0]["address"] == "10.0.0.2/24"
    assert back["ips"][0]["gateway"] == "10.0.0.1"
    assert back["dns"] == _RESULT["dns"]


_FULL = {
    "interfaces": [{"name": "eth0", "sandbox": "/ns", "mtu": 1500, "socketPath": "/s", "pciID": "0000:00:01.0"}],
    "ips": [{"address": "10.0.0.2/24", "gateway": "10.0.0.1", "interface": 0}, {"address": "fd00::2/64", "interface": 0}],
    "routes": [{"dst": "0.0.0.0/0", "gw": "10.0.0.1", "mtu": 1400, "advmss": 1360, "priority": 5, "table": 9, "scope": 0}]
    + [{"dst": "fd01::/64"}],
    "dns": {},
}
_IN_EACH = {
    "0.2.0": {
        "ip4": {"ip": "10.0.0.2/24", "gateway": "10.0.0.1", "routes": [{"dst": "0.0.0.0/0", "gw": "10.0.0.1"}]},
        "ip6": {"ip": "fd00::2/64", "routes": [{"dst": "fd01::/64"}]},
        "dns": {},
    },
    "0.4.0": {
        "interfaces": [{"name": "eth0", "sandbox": "/ns"}],
        "ips": [
            {"version": "4", "address": "10.0.0.2/24", "gateway": "10.0.0.1", "interface": 0},
            {"version": "6", "address": "fd00::2/64", "interface": 0},
        ],
        "routes": _FULL["routes"],
        "dns": {},
    },
    "1.0.0": {"interfaces": [{"name": "eth0", "sandbox": "/ns"}], "ips": _FULL["ips"], "routes": _FULL["routes"]},
    "1.1.0": {key: _FULL[key] for key in ("interfaces", "ips", "routes")},
}


@pytest.mark.parametrize(("version", "expected"), _IN_EACH.items())
def test_a_result_in_each_version(version: str, expected: dict[str, object]) -> None:
    """Word for word as the reference set prints it, dual stack, with everything that 1.1.0 can say; read back, nothing
    is said that was not."""
    assert export(_FULL, version) == {"cniVersion": version, **expected}
    back = read({"cniVersion": version, **expected})
    assert [ip["address"] for ip in back["ips"]] == ["10.0.0.2/24", "fd00::2/64"]
    assert export(back, version) == {"cniVersion": version, **expected}


def test_old_versions_have_what_they_know() -> None:
    """ips.version until 0.4.0, mtu since 1.1.0, ip4 before 0.3.0."""
    assert export(_RESULT, "0.4.0")["ips"][0]["version"] == "4"
    assert "mtu" not in export(_RESULT, "1.0.0")["interfaces"][0]
    assert export(_RESULT, "1.1.0")["interfaces"][0]["mtu"] == 1500
    assert export(_RESULT, "0.2.0")["ip4"]["ip"] == "10.0.0.2/24"


@pytest.mark.parametrize(
    "document", [[], {"cniVersion": "9"}, {"cniVersion": "1.0.0", "ips": [{}]}, {"cniVersion": "1.0.0", "ips": 3}]
)
def test_a_malformed_result_is_refused_by_its_field(document: object) -> None:
    """The message names prevResult."""
    with pytest.raises(InvalidArgument, match="prevResult"):
        read(document)
