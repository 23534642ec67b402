"""A list of bridge, tuning, bandwidth and sbr as executables: each passes the result on, and none breaks another's CHECK."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.wait import wait_for
from runtime_core.testing import namespaces
from tests.kernel.cni.meta_pod import links_of_node

_ROOT = Path(__file__).parents[3]
_MAC = "02:00:00:00:00:07"
_LIMITS = {"ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 8_000_000, "egressBurst": 800_000}
_CHAINED = ("bandwidth", "tuning", "sbr", "vrf")


class Chain:
    """A network of four plugins, called one after the other as a runtime does."""

    def __init__(self, directory: Path, bin_directory: Path) -> None:
        self.directory, self.bin, self.pod = directory, bin_directory, directory / "pod"
        namespaces.pin_namespace(self.pod)
        ranges = [[{"subnet": "10.77.0.0/24"}], [{"subnet": "fd77::/64"}]]
        ipam = {"type": "host-local", "dataDir": str(directory / "ipam"), "ranges": ranges}
        self.plugins: list[dict[str, Any]] = [
            {"type": "bridge", "bridge": "cnit0", "isDefaultGateway": True, "ipam": ipam},
            {"type": "tuning", "mac": _MAC, "mtu": 1400, "sysctl": {"net.core.somaxconn": "333"}, "dataDir": str(directory / "data")},
            {"type": "bandwidth", "runtimeConfig": {"bandwidth": _LIMITS}},
            {"type": "sbr"},
        ]  # fmt: skip

    def call(self, verb: str, plugin: dict[str, Any], *, netns: str | None = None, **more: Any) -> tuple[int, dict[str, Any]]:
        """(exit status, what it printed)."""
        environment = {
            "PATH": os.environ["PATH"], "CNI_COMMAND": verb, "CNI_PATH": str(self.bin), "CNI_CONTAINERID": "c1",
            "CNI_IFNAME": "eth0", "CNI_NETNS": str(self.pod) if netns is None else netns,
        }  # fmt: skip
        document = {"cniVersion": "1.1.0", "name": "net", **plugin, **more}
        done = subprocess.run(
            [str(self.bin / plugin["type"])], input=json.dumps(document).encode(), env=environment, capture_output=True, check=False
        )  # fmt: skip
        assert done.stderr == b"", done.stderr.decode()
        return done.returncode, json.loads(done.stdout) if done.stdout else {}

    def add(self) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for plugin in self.plugins:
            status, result = self.call("ADD", plugin, **({"prevResult": result} if result else {}))
            assert status == 0, result
        return result


def _install(directory: Path, *more: str) -> Path:
    command = [sys.executable, "-m", "cni_plugins", "install", *more, "--bin-dir", str(directory)]
    subprocess.run(command, cwd=_ROOT, check=True, capture_output=True)
    return directory


@pytest.fixture(scope="module")
def bin_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _install(tmp_path_factory.mktemp("bin"), "--no-service")


@pytest.fixture
def chain(tmp_path: Path, bin_directory: Path) -> Iterator[Chain]:
    with namespaces.node_namespace():
        chain = Chain(tmp_path, bin_directory)
        yield chain
        namespaces.unpin_namespace(chain.pod)


@pytest.fixture
def chain_by_service(tmp_path: Path) -> Iterator[Chain]:
    """Whose executables hand their calls to the warm service, which the first one starts."""
    socket = tmp_path / "run" / "service.sock"
    with namespaces.node_namespace():
        chain = Chain(tmp_path, _install(tmp_path / "bin", "--socket", str(socket)))
        assert chain.call("STATUS", {"type": "sbr"}) == (0, {})
        wait_for("the service", socket.exists, 20)
        yield chain
        os.kill(int(Path(f"{socket}.lock").read_text()), signal.SIGTERM)
        wait_for("the service's end", lambda: not socket.exists(), 20)
        namespaces.unpin_namespace(chain.pod)


@pytest.mark.parametrize("how", ["chain", "chain_by_service"])
def test_a_whole_life(how: str, request: pytest.FixtureRequest) -> None:
    """ADD in order, CHECK of all with the last result, DEL in reverse, twice: nothing is left on the node."""
    chain: Chain = request.getfixturevalue(how)
    result = chain.add()
    bridge, port, container, device = result["interfaces"]
    assert (bridge["name"], container["mac"], container["mtu"]) == ("cnit0", _MAC, 1400)
    assert sorted([port["name"], device["name"], "cnit0"]) == links_of_node()
    assert [ip["interface"] for ip in result["ips"]] == [2, 2]
    for plugin in chain.plugins:
        assert chain.call("CHECK", plugin, prevResult=result) == (0, {})
    for _time in range(2):
        for plugin in reversed(chain.plugins):
            assert chain.call("DEL", plugin, prevResult=result) == (0, {})
    assert links_of_node() == ["cnit0"]
    assert list((chain.directory / "data").iterdir()) == []


@pytest.mark.parametrize("netns", ["", "gone"])
def test_del_and_gc_when_the_pod_is_gone(chain: Chain, netns: str) -> None:
    """By DEL without namespace and result, or by GC alone; no file appears under the namespace's name."""
    chain.add()
    namespaces.unpin_namespace(chain.pod)
    for plugin in reversed(chain.plugins):
        path = str(chain.directory / netns) if netns else ""
        assert chain.call("DEL", plugin, netns=path) == (0, {})
    assert (links_of_node(), list((chain.directory / "data").iterdir())) == (["cnit0"], [])
    assert not (chain.directory / "gone").exists()


def test_gc(chain: Chain) -> None:
    chain.add()
    namespaces.unpin_namespace(chain.pod)
    for plugin in chain.plugins:
        assert chain.call("GC", plugin, **{"cni.dev/valid-attachments": []}) == (0, {})
    assert (links_of_node(), list((chain.directory / "data").iterdir())) == (["cnit0"], [])


@pytest.mark.parametrize("kind", _CHAINED)
@pytest.mark.parametrize("verb", ["ADD", "CHECK"])
def test_without_a_result_it_is_an_error_of_the_configuration(chain: Chain, kind: str, verb: str) -> None:
    status, error = chain.call(verb, {"type": kind, "vrfname": "blue"})
    assert (status, error["code"]) == (1, 7)
    assert error["msg"] == f"prevResult is missing: {kind} comes after other plugins of a list"


@pytest.mark.parametrize("version", ["0.1.0", "0.3.1", "0.4.0", "1.0.0"])
def test_the_result_keeps_its_version(chain: Chain, version: str) -> None:
    """tuning and sbr in every version; addresses without interfaces are the interface's own."""
    bridge = chain.plugins[0]
    status, result = chain.call("ADD", bridge, cniVersion=version)
    assert status == 0
    for plugin in ({"type": "tuning", "mtu": 1400, "dataDir": str(chain.directory / "data")}, {"type": "sbr"}):
        status, result = chain.call("ADD", plugin, cniVersion=version, prevResult=result)
        assert (status, result["cniVersion"]) == (0, version), result
        chain.plugins.append(plugin)
    for plugin in (bridge, *chain.plugins[-2:]):
        status, error = chain.call("CHECK", plugin, cniVersion=version, prevResult=result)
        assert (status, error.get("code", 0)) == ((0, 0) if version >= "0.4.0" else (1, 1)), error  # CHECK came with 0.4.0


@pytest.mark.parametrize(
    ("plugin", "code", "message"),
    [
        ({"type": "bandwidth", **_LIMITS}, 0, ""),
        ({"type": "bandwidth", "ingressRate": 8}, 7, "ingressBurst"),
        ({"type": "tuning", "sysctl": {"net.core.somaxconn": "1"}}, 0, ""),
        ({"type": "tuning", "sysctl": {"net.core.no_such": "1"}}, 50, "sysctl.net.core.no_such: the kernel has no"),
        ({"type": "sbr"}, 0, ""),
        ({"type": "sbr", "table": 0}, 7, "table"),
        ({"type": "vrf"}, 7, "vrfname"),
    ],
)
def test_status(chain: Chain, plugin: dict[str, Any], code: int, message: str) -> None:
    """50 for what the kernel lacks, 7 for a wrong configuration."""
    status, error = chain.call("STATUS", plugin)
    assert (status, error.get("code", 0), message in error.get("msg", "")) == (bool(code), code, True), error
    assert links_of_node() == []
