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
