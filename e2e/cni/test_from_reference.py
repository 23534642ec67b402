"""A node moves from the reference plugins to ours while pods run: ours check them, take them down and clean up after them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.peers.build import build
from runtime_core.errors import FailedPrecondition
from runtime_core.testing.tools import require_program
from tests.kernel.cni import main_node
from tests.kernel.cni.main_node import Node, run, uplink
from tests.kernel.cni.mapped_ports import NODE, OUTSIDE
from tests.kernel.cni.port_traffic import rules, talk

pytestmark = pytest.mark.timeout(1800)  # the first run compiles

_REFERENCE = ("bridge", "ptp", "host-local", "portmap", "firewall")
_PORTS = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}, {"hostPort": 8053, "containerPort": 53, "protocol": "udp"}]
_ONE = {"hostPort": 8081, "containerPort": 80, "protocol": "tcp", "hostIP": NODE[4]}
backends = pytest.mark.parametrize("backend", ["nftables", "iptables"])


class Moving:
    """A node with an uplink on which the reference plugins have made pods."""

    def __init__(self, node: Node, directory: Path, backend: str) -> None:
        self.node, self.backend, self.results = node, backend, {}  # type: ignore[var-annotated]
        self.outside = node.pod("outside")
        uplink(self.outside)
        run("nft", "add table ip kept")
        for program in ("iptables", "ip6tables"):  # an empty table stays when its last rule goes
            run(program, "-t", "nat", "-L")
            run(program, "-t", "filter", "-L")
        self.before = rules()
        self._bin = directory / "bin"
        self._bin.mkdir()
        for name in _REFERENCE:
            (self._bin / name).symlink_to(build(name))

    def chain(self, name: str = "net", kind: str = "bridge", ports: list[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
        subnets = main_node.SUBNETS if name == "net" else ("10.78.0.0/24",)
        first = self.node.config(kind, subnets=subnets, name=name, ipMasq=True, ipMasqBackend=self.backend)
        if kind == "ptp":
            first["ipam"]["routes"] = [{"dst": "0.0.0.0/0"}]
        else:
            first |= {"bridge": f"cnit-{name}", "isDefaultGateway": True, "hairpinMode": True, "macspoofchk": True}
        common = {"cniVersion": "1.1.0", "name": name}
        mapped = {"type": "portmap", "backend": self.backend, "runtimeConfig": {"portMappings": ports or [*_PORTS, _ONE]}}
        firewall = {"type": "firewall", "backend": "iptables", "ingressPolicy": "same-bridge" if kind == "bridge" else "open"}
        return [first, {**common, **mapped}, *([{**common, **firewall}] if self.backend == "iptables" else [])]

    def theirs(self, container: str, chain: list[dict[str, Any]]) -> Path:
        """A pod that the reference plugins have made."""
        pod, result = self.node.pod(container), {}
        for config in chain:
            text = json.dumps({**config, **({"prevResult": result} if result else {})})
            environment = {
                "PATH": os.environ["PATH"], "CNI_PATH": str(self._bin), "CNI_COMMAND": "ADD", "CNI_CONTAINERID": container,
                "CNI_IFNAME": "eth0", "CNI_NETNS": str(pod),
            }  # fmt: skip
            done = subprocess.run([str(self._bin / config["type"])], input=text, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout
            result = json.loads(done.stdout)
        self.results[container] = result
        return pod

    def ours(self, verb: str, chain: list[dict[str, Any]], container: str, pod: Path | str, **more: Any) -> None:
        for config in chain if verb != "DEL" else reversed(chain):
            known = {"prevResult": self.results.get(container)} if verb != "GC" else {}
            called = {key: value for key, value in {**config, **known, **more}.items() if value is not None}
            self.node.call(verb, called, pod, container_id=container)

    def add(self, chain: list[dict[str, Any]], container: str) -> Path:
        """A pod of ours."""
        pod = self.node.pod(container)
        for config in chain:
            known = {"prevResult": self.results[container]} if container in self.results else {}
            self.results[container] = self.node.call("ADD", {**config, **known}, pod, container_id=container)
        return pod

    def seen(self, pod: Path, address: str, port: int = 8080, node: str = NODE[4]) -> str | None:
        return talk("tcp", self.outside, (node, port), pod, (address, 80))


@pytest.fixture
def moving(tmp_path: Path, backend: str) -> Iterator[Moving]:
    require_program("go", "golang")
    with main_node.made(tmp_path) as node:
        yield Moving(node, tmp_path, backend)


@backends
@pytest.mark.parametrize("kind", ["bridge", "ptp"])
@pytest.mark.parametrize("change", [{}, {"prevResult": None}])
@pytest.mark.parametrize("is_gone", [False, True])
def test_del_takes_down_what_they_made(moving: Moving, kind: str, change: dict[str, Any], is_gone: bool) -> None:
    """Masquerading, port maps, admissions, guards, leases; of this pod alone, and with the last one what all stood on. Twice."""
    chain, other = moving.chain(kind=kind), moving.chain("other", kind, [{**_PORTS[0], "hostPort": 8090}])
    pod, others = moving.theirs("c1", chain), moving.theirs("c2", other)
    moving.ours("CHECK", chain, "c1", pod)
    assert moving.seen(pod, "10.77.0.2") == OUTSIDE[4]
    for _time in range(2):
        moving.ours("DEL", chain, "c1", "/nowhere" if is_gone else pod, **change)
    left = [line for line in rules().splitlines() if any(one in line for one in ("10.77.0.2", "fd77::2", '"c1', "id: c1"))]
    if is_gone and change:  # nothing tells the firewall the addresses of a pod whose namespace and result are gone, but its rules
        assert [line for line in left if "CNI-FORWARD" not in line] == []
    else:
        assert left == []
    assert moving.node.reserved() == []
    moving.ours("CHECK", other, "c2", others)
    moving.ours("DEL", other, "c2", others)
    assert [line for line in rules().splitlines() if "CNI" in line or "cni" in line] == []


@backends
def test_a_new_pod_has_the_port(moving: Moving) -> None:
    """While the earlier one lives it waits; then the traffic is its own, and the source is who connects."""
    chain = moving.chain()
    earlier = moving.theirs("c1", chain)
    new = moving.add(chain, "c2")
    assert moving.seen(earlier, "10.77.0.2") == OUTSIDE[4]
    moving.ours("DEL", chain, "c1", earlier)
    assert moving.seen(new, "10.77.0.3") == OUTSIDE[4]
    assert moving.seen(new, "fd77::3", node=NODE[6]) == OUTSIDE[6]
    moving.ours("CHECK", chain, "c2", new)
    moving.ours("DEL", chain, "c2", new)
    assert [line for line in rules().splitlines() if "CNI" in line or "cni" in line] == []


@backends
@pytest.mark.parametrize("masq", [True, False])
def test_gc_takes_down_what_is_stale(moving: Moving, masq: bool) -> None:
    """Of this network; what is valid and what is another network's stays."""
    chain, other = moving.chain(), moving.chain("other", ports=[{**_PORTS[0], "hostPort": 8090}])
    chain[0]["ipMasq"] = masq
    moving.theirs("stale", chain)
    kept, theirs = moving.theirs("kept", moving.chain(ports=[{**_PORTS[0], "hostPort": 8070}])), moving.theirs("theirs", other)
    moving.ours("GC", chain, "", "")
    assert "stale" in rules()
    moving.ours("GC", chain, "", "", **{"cni.dev/valid-attachments": [{"containerID": "kept", "ifname": "eth0"}]})
    left = [line for line in rules().splitlines() if any(one in line for one in ("10.77.0.2", "fd77::2", "stale"))]
    assert left == []
    moving.ours("CHECK", moving.chain(ports=[{**_PORTS[0], "hostPort": 8070}]), "kept", kept)
    moving.ours("CHECK", other, "theirs", theirs)
    assert moving.seen(kept, "10.77.0.3", 8070) == OUTSIDE[4]


@backends
@pytest.mark.parametrize(
    "command",
    [
        {"nftables": "nft flush chain inet cni_plugins_masquerade masq_checks", "iptables": "iptables -t nat -F POSTROUTING"},
        {"nftables": "nft flush chain ip cni_hostport hostports", "iptables": "iptables -t nat -F CNI-HOSTPORT-DNAT"},
        {"nftables": "nft flush chain bridge nat PREROUTING", "iptables": "iptables -F CNI-FORWARD"},
    ],
)
def test_check_sees_what_is_gone_of_theirs(moving: Moving, command: dict[str, str]) -> None:
    chain = moving.chain()
    pod = moving.theirs("c1", chain)
    moving.ours("CHECK", chain, "c1", pod)
    run(*command[moving.backend].split())
    with pytest.raises(FailedPrecondition):
        moving.ours("CHECK", chain, "c1", pod)
