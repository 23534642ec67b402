"""Our plugins as `trivet-cni install` writes them, called as any runtime calls them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cni_plugins.ipam.host_local.leases import list_leases
from plugins.packet_filters.nftables import NftablesFilter
from runtime_core.kernel import netlink
from runtime_core.network.links import Links
from runtime_core.testing import namespaces
from runtime_core.testing.tools import require_program

_ROOT = Path(__file__).parents[3]


class Node:
    """A node of its own, with the executables and one pod."""

    def __init__(self, directory: Path, *, has_service: bool) -> None:
        self.directory, self.pod = directory, directory / "pod"
        namespaces.pin_namespace(self.pod)
        self.socket = directory / "run" / "service.sock"
        command = [
            sys.executable,
            "-m",
            "cni_plugins",
            "install",
            "--bin-dir",
            str(directory / "bin"),
            "--socket",
            str(self.socket),
        ]
        subprocess.run([*command, *([] if has_service else ["--no-service"])], cwd=_ROOT, check=True, capture_output=True)

    def config(self, **more: Any) -> dict[str, Any]:
        ranges = [[{"subnet": "10.77.0.0/24"}], [{"subnet": "fd77::/64"}]]
        return {
            "cniVersion": "1.1.0", "name": "net", "type": "bridge", "bridge": "cnit0", "isDefaultGateway": True, "ipMasq": True,
            "ipam": {"type": "host-local", "dataDir": str(self.directory / "ipam"), "ranges": ranges}, **more,
        }  # fmt: skip

    def call(self, verb: str, config: dict[str, Any], says: bytes = b"", **variables: str) -> tuple[int, dict[str, Any]]:
        """(exit status, what it printed); on standard error it `says` that alone."""
        environment = {
            "PATH": os.environ["PATH"], "CNI_COMMAND": verb, "CNI_PATH": str(self.directory / "bin"),
            "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_NETNS": str(self.pod), **variables,
        }  # fmt: skip
        done = subprocess.run(
            [str(self.directory / "bin" / config["type"])],
            input=json.dumps(config).encode(), env=environment, capture_output=True, check=False,
        )  # fmt: skip
        assert done.stderr == says, done.stderr.decode()
        return done.returncode, json.loads(done.stdout) if done.stdout else {}

    def stop(self) -> None:
        if self.socket.parent.exists():  # it may be about to listen
            wait_for(self.socket.exists)
            os.kill(int(Path(f"{self.socket}.lock").read_text()), signal.SIGTERM)
            wait_for(lambda: not self.socket.exists())

    def attach(self) -> dict[str, Any]:
        """The configuration with prevResult, as the calls after ADD have it."""
        status, result = self.call("ADD", self.config())
        assert status == 0, result
        return self.config(prevResult=result)

    def reserved(self) -> list[str]:
        return [lease.address for lease in list_leases(str(self.directory / "ipam")) if lease.network == "net"]

    def links(self) -> list[str]:
        with netlink.Socket() as sock:
            return sorted(link.name for link in Links(sock).all() if link.name not in ("lo", "cnit0"))


@pytest.fixture(params=[True, False], ids=["service", "alone"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    with namespaces.node_namespace():
        node = Node(tmp_path, has_service=request.param)
        try:
            if request.param:
                assert node.call("STATUS", node.config()) == (0, {})  # the call that starts it
                wait_for(node.socket.exists)
            yield node
        finally:
            namespaces.unpin_namespace(node.pod)
            node.stop()


def wait_for(holds: Callable[[], bool]) -> None:
    """Of what no event tells: looked for until it is so."""
    deadline = time.monotonic() + 15
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_second_add_is_refused_and_harms_nothing(node: Node) -> None:
    """The interface, the addresses and the masquerading are those of the first one, which still checks out."""
    config = node.attach()
    before = node.reserved(), node.links(), NftablesFilter().masqueraded()
    status, error = node.call("ADD", node.config())
    assert (status, error["msg"]) == (1, "CNI_IFNAME: the container has an interface eth0 already")
    assert (node.reserved(), node.links(), NftablesFilter().masqueraded()) == before
    assert node.call("CHECK", config) == (0, {})


def test_a_refused_add_in_a_chain_gives_its_addresses_back(node: Node) -> None:
    """The result of an earlier plugin, which comes along, is not mistaken for its own."""
    with netlink.Socket() as sock:  # the bridge has another address, which ADD must not replace
        links = Links(sock)
        links.add_bridge("cnit0")
        bridge = links.find("cnit0")
        assert bridge is not None
        links.configure(bridge.index, ["192.0.2.1/24"], [])
    earlier = {"cniVersion": "1.1.0", "ips": [{"address": "127.0.0.1/8"}]}
    status, error = node.call("ADD", node.config(prevResult=earlier))
    assert (status, "forceAddress" in error["msg"]) == (1, True)
    assert (node.reserved(), node.links(), namespaces.addresses(str(node.pod))) == ([], [], set())


def test_a_container_may_be_connected_without_addresses(node: Node) -> None:
    """Without ipam; and what is refused then says why."""
    config = {"cniVersion": "1.1.0", "name": "net", "type": "bridge", "bridge": "cnit0"}
    status, result = node.call("ADD", config)
    assert (status, "ips" in result, len(result["interfaces"])) == (0, False, 3)
    assert node.call("CHECK", {**config, "prevResult": result}) == (0, {})
    assert node.call("ADD", config)[1]["msg"] == "CNI_IFNAME: the container has an interface eth0 already"
    assert node.call("DEL", {**config, "prevResult": result}) == (0, {})
    assert node.links() == []


def test_the_bridges_address_does_not_change_with_its_ports(node: Node) -> None:
    """Who has learnt the gateway's hardware address keeps reaching it."""
    first = node.call("ADD", node.config())[1]["interfaces"][0]["mac"]
    other = node.directory / "other"
    namespaces.pin_namespace(other)
    second = node.call("ADD", node.config(), CNI_CONTAINERID="c2", CNI_NETNS=str(other))[1]["interfaces"][0]["mac"]
    node.call("DEL", node.config())
    with netlink.Socket() as sock:
        bridge = Links(sock).find("cnit0")
    namespaces.unpin_namespace(other)
    assert bridge is not None
    assert first == second == bridge.mac


@pytest.mark.parametrize(
    ("break_", "message"),
    [
        (["ip", "link", "del", "cnit0"], "bridge cnit0 is missing"),
        (["ip", "link", "set", "cnit0", "down"], "bridge cnit0 is missing or down"),
        (["ip", "addr", "del", "10.77.0.1/24", "dev", "cnit0"], "lacks the gateway's address 10.77.0.1/24"),
        (["nft", "flush", "map", "ip", "trivet_cni", "pods"], "the masquerading of 10.77.0.2 is gone"),
        (["nft", "flush", "set", "ip", "trivet_cni", "sources-24"], "the masquerading of 10.77.0.2 is gone"),
        (["nft", "flush", "set", "ip", "trivet_cni", "near-24"], "the masquerading of 10.77.0.2 is gone"),
        (["nft", "flush", "chain", "ip", "trivet_cni", "masq-24"], "the masquerading of 10.77.0.2 is gone"),
        (["nft", "flush", "chain", "ip", "trivet_cni", "postrouting-24"], "the masquerading of 10.77.0.2 is gone"),
        (["nft", "delete", "table", "ip", "trivet_cni"], "the masquerading of 10.77.0.2 is gone"),
        (["inside", "ip", "link", "del", "eth0"], "is not on bridge"),
        (["inside", "ip", "link", "set", "eth0", "down"], "eth0 of the container is missing or down"),
        (["inside", "ip", "addr", "del", "10.77.0.2/24", "dev", "eth0"], "lacks 10.77.0.2/24"),
        (["inside", "ip", "route", "del", "default"], "lacks the route to 0.0.0.0/0 by 10.77.0.1"),
        (["inside", "ip", "-6", "route", "del", "default"], "lacks the route to ::/0 by fd77::1"),
        (["rm", "-r", "{ipam}/net"], "10.77.0.2 is not reserved"),
    ],
)
def test_check_sees_what_is_broken(node: Node, break_: list[str], message: str) -> None:
    """And DEL takes down what is left of it; GC mends rules whose owner is still known."""
    for program, package in (("ip", "iproute2"), ("nft", "nftables"), ("nsenter", "util-linux")):
        if program in (*break_, "nsenter"):
            require_program(program, package)
    config = node.attach()
    assert node.call("CHECK", config) == (0, {})
    command = [word.format(ipam=node.directory / "ipam") for word in break_]
    if command[0] == "inside":
        command[:1] = ["nsenter", f"--net={node.pod}"]
    subprocess.run(command, check=True)
    status, error = node.call("CHECK", config)
    assert (status, message in error["msg"]) == (1, True), error
    if "flush" in command and "pods" not in command:
        assert node.call("GC", {**config, "cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]}) == (0, {})
        assert node.call("CHECK", config) == (0, {})
    assert node.call("DEL", config) == (0, {})
    assert (node.reserved(), node.links(), NftablesFilter().masqueraded()) == ([], [], [])
    assert subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True).stdout == b""


@pytest.mark.parametrize("netns", ["", "/nowhere", "{file}"])
@pytest.mark.parametrize("has_result", [True, False])
def test_del_without_a_namespace(node: Node, netns: str, has_result: bool) -> None:
    """Address, link and masquerading go, whatever CNI_NETNS says and whether or not the result comes along; twice."""
    config = node.attach()
    if not has_result:
        del config["prevResult"]
    plain = node.directory / "plain"
    plain.touch()
    namespaces.unpin_namespace(node.pod)
    for _time in range(2):
        assert node.call("DEL", config, CNI_NETNS=netns.format(file=plain)) == (0, {})
        assert (node.reserved(), node.links(), NftablesFilter().masqueraded()) == ([], [], [])
    assert not Path("/nowhere").exists()


def test_del_with_a_configuration_that_is_bad_by_now(node: Node) -> None:
    """What was made can be taken down; ADD refuses it."""
    config = {**node.attach(), "mtu": -5, "promiscMode": "x"}
    config["ipam"]["ranges"] = []
    assert node.call("ADD", config)[0] == 1
    assert node.call("DEL", config) == (0, {})
    assert (node.reserved(), node.links(), NftablesFilter().masqueraded()) == ([], [], [])


def test_gc_keeps_the_named_and_nothing_else(node: Node) -> None:
    """Of its own network: another's, under the same bridge, stays."""
    config = node.attach()
    foreign = {**node.config(), "name": "foreign"}
    foreign["ipam"]["ranges"] = [[{"subnet": "10.77.0.0/24", "rangeStart": "10.77.0.100"}]]
    pods = {name: node.directory / name for name in ("stale", "theirs")}
    for path in pods.values():
        namespaces.pin_namespace(path)
    assert node.call("ADD", node.config(), CNI_CONTAINERID="stale", CNI_NETNS=str(pods["stale"]))[0] == 0
    assert node.call("ADD", foreign, CNI_CONTAINERID="theirs", CNI_NETNS=str(pods["theirs"]))[0] == 0
    for path in pods.values():
        namespaces.unpin_namespace(path)
    before = sorted(NftablesFilter().masqueraded())
    assert node.call("GC", node.config()) == (0, {})  # without the list, as cnitool calls it
    assert sorted(NftablesFilter().masqueraded()) == before
    valid = [{"containerID": "c1", "ifname": "eth0"}]
    for key in ("cni.dev/valid-attachments", "cni.dev/attachments"):
        assert node.call("GC", {**node.config(), key: valid}) == (0, {})
        assert node.reserved() == ["10.77.0.2", "fd77::2"]
    owners = {owner for _address, owner in NftablesFilter().masqueraded()}
    assert owners == {"net c1 eth0", "foreign theirs eth0"}
    assert node.call("CHECK", config) == (0, {})


@pytest.mark.parametrize("entries", ["c1", [1], [{"containerID": "c1"}], {"containerID": "c1", "ifname": "eth0"}])
def test_gc_with_a_list_that_is_none(node: Node, entries: Any) -> None:
    """It is refused, and nothing is taken away."""
    node.attach()
    status, error = node.call("GC", {**node.config(), "cni.dev/valid-attachments": entries})
    assert (status, error["code"]) == (1, 7)
    assert node.reserved() == ["10.77.0.2", "fd77::2"]


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ({"ipam": {"type": "absent"}}, 50, "'absent' is neither in"),
        ({"ipam": {"type": "../evil"}}, 7, "ipam.type: '../evil' is not a plugin name"),
        ({"ipam": "host-local"}, 7, "ipam: 'host-local' is not an object"),
        ({"ipam": {"type": "host-local"}}, 50, "ipam.ranges"),
        ({"bridge": "a/b"}, 7, "bridge"),
        ({"vlan": 4095}, 7, "vlan"),
        ({"cniVersion": "3.0.0"}, 1, "cniVersion"),
    ],
)
def test_status_says_what_add_would_refuse(node: Node, change: dict[str, Any], code: int, message: str) -> None:
    """With the specification's code: 50 where a plugin is not there."""
    status, error = node.call("STATUS", {**node.config(), **change})
    assert (status, error["code"], message in error["msg"]) == (1, code, True), error


_FOREIGN_IPAM = """#!/bin/sh
env > {directory}/environment.$CNI_COMMAND
echo "$CNI_COMMAND was asked" >&2
[ "$CNI_COMMAND" != ADD ] || echo '{{"cniVersion": "1.1.0", "ips": [{{"address": "10.77.0.9/24"}}]}}'
"""


def test_somebody_elses_ipam_plugin_has_the_callers_environment_and_standard_error(node: Node) -> None:
    """Whole, as the specification has it of delegation; what it says is passed on though it succeeds."""
    plugin = node.directory / "bin" / "whereabouts"
    plugin.write_text(_FOREIGN_IPAM.format(directory=node.directory))
    plugin.chmod(0o755)
    config = node.config(ipam={"type": "whereabouts"})
    variables = {"KUBECONFIG": "/etc/k8s.conf", "HTTPS_PROXY": "http://p:3128", "CNI_NETNS_OVERRIDE": "1"}
    assert node.call("ADD", config, says=b"ADD was asked\n", **variables)[0] == 0
    assert node.call("DEL", config, says=b"DEL was asked\n", **variables)[0] == 0
    for verb in ("ADD", "DEL"):
        lines = (node.directory / f"environment.{verb}").read_text().splitlines()
        assert {f"{key}={value}" for key, value in variables.items()} <= set(lines)
        assert {f"CNI_COMMAND={verb}", "CNI_CONTAINERID=c1", "CNI_IFNAME=eth0", f"CNI_NETNS={node.pod}"} <= set(lines)


@pytest.mark.parametrize("verb", ["ADD", "CHECK", "DEL"])
def test_an_absent_ipam_plugin_is_the_configurations_fault(node: Node, verb: str) -> None:
    """Never code 3, for which a runtime takes nothing down."""
    status, error = node.call(verb, node.config(ipam={"type": "absent"}, prevResult={"cniVersion": "1.1.0"}))
    assert (status, error["code"], "'absent' is neither in" in error["msg"]) == (1, 7, True)


def test_mac_by_arguments_needs_no_ignore_unknown(node: Node) -> None:
    """For ADD and DEL; the address is the container's."""
    status, result = node.call("ADD", node.config(), CNI_ARGS="MAC=02:00:00:00:00:42")
    assert (status, result["interfaces"][2]["mac"]) == (0, "02:00:00:00:00:42")
    assert node.call("DEL", node.config(), CNI_ARGS="MAC=02:00:00:00:00:42") == (0, {})


def test_two_callers_at_once_get_two_addresses(node: Node) -> None:
    """Sixteen processes of the executable."""
    pods = [node.directory / f"pod{number}" for number in range(16)]
    running = []
    for number, pod in enumerate(pods):
        namespaces.pin_namespace(pod)
        environment = {
            "CNI_COMMAND": "ADD", "CNI_PATH": str(node.directory / "bin"), "CNI_CONTAINERID": f"c{number}", "CNI_IFNAME": "eth0",
            "CNI_NETNS": str(pod),
        }  # fmt: skip
        process = subprocess.Popen(
            [node.directory / "bin" / "bridge"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
        running.append(process)
    outputs = [process.communicate(json.dumps(node.config()).encode())[0] for process in running]
    for pod in pods:
        namespaces.unpin_namespace(pod)
    addresses = [ip["address"] for output in outputs for ip in json.loads(output)["ips"]]
    assert len(set(addresses)) == 32
