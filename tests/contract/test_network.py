"""Every installed trivet.network driver keeps its contract."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runtime_core.cni.result import VERSIONS
from runtime_core.interfaces.network import Network, PodNetwork
from runtime_core.registry import installed, load_driver
from runtime_core.testing import namespaces
from runtime_core.testing.network_contract import ConnectingNetworkContract, NetworkContract


class TestCni(ConnectingNetworkContract):
    """With our own plugins: bridge with masquerading, and host-local, of both IP versions."""

    version = "1.1.0"

    @pytest.fixture
    def make_network(self, node: None, tmp_path: Path) -> Callable[[], Network]:
        self.directory = tmp_path
        (tmp_path / "net.d").mkdir()
        write_list(tmp_path, self.version)
        return lambda: load_driver("network", "cni")(conf_dir=tmp_path / "net.d", bin_dirs=[], cache_dir=tmp_path / "cache")

    def remains(self) -> object:
        reservations = sorted(p.name for p in (self.directory / "ipam").rglob("*") if p.is_file() and "last" not in p.name)
        attachments = sorted(path.name for path in (self.directory / "cache").iterdir())
        return [super().remains(), reservations, attachments, sorted(load_driver("packetfilter", "nftables")().masqueraded())]


class TestNone(NetworkContract):
    @pytest.fixture
    def make_network(self, node: None) -> Callable[[], Network]:
        return lambda: load_driver("network", "none")(conf_dir=None, bin_dirs=[], cache_dir=None)


def test_every_driver_is_tested_here() -> None:
    """A new one declares itself and gets its class above."""
    assert [driver.name for driver in installed("network")] == ["cni", "none"]


@pytest.mark.parametrize("version", VERSIONS)
class TestEveryVersion(NetworkContract):
    """The cni driver speaks the CNI version that a configuration asks for."""

    @pytest.fixture
    def make_network(self, node: None, tmp_path: Path, version: str) -> Callable[[], Network]:
        (tmp_path / "net.d").mkdir()
        write_list(tmp_path, version)
        return lambda: load_driver("network", "cni")(conf_dir=tmp_path / "net.d", bin_dirs=[], cache_dir=tmp_path / "cache")

    def test_addresses(self, network: Network, make_pod: Callable[[], PodNetwork]) -> None:
        """A pod has its addresses and routes whatever the version of the configuration."""
        pod = make_pod()
        addresses = network.attach(pod).addresses
        assert [address.partition(":")[0] for address in addresses] == ["10.88.0.2", "fd88"]
        assert namespaces.default_routes(pod.netns_path) == {4, 6}


def write_list(directory: Path, version: str) -> None:
    bridge: dict[str, Any] = {
        "type": "bridge", "bridge": "cni0", "isGateway": True, "isDefaultGateway": True, "ipMasq": True,
        "ipam": {
            "type": "host-local", "dataDir": str(directory / "ipam"),
            "ranges": [[{"subnet": "10.88.0.0/24"}], [{"subnet": "fd88::/64"}]],
        },
    }  # fmt: skip
    document = {"cniVersion": version, "name": "contract", "plugins": [bridge, {"type": "loopback"}]}
    (directory / "net.d" / "10-contract.conflist").write_text(json.dumps(document))
